// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cell"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/control"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
)

// SaveCommand and LoadCommand are the arguments with which the program calls itself
// inside the first node, where etcd listens.
const (
	SaveCommand = "etcd-save"
	LoadCommand = "etcd-load"
)

// Snapshot writes what etcd holds to the file, whole or not at all.
func Snapshot(c spec.Cluster, file string) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".snapshot-*")
	if err != nil {
		return fmt.Errorf("make snapshot: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // fails if it got its name
	err = within(c, SaveCommand, func(cmd *exec.Cmd) { cmd.Stdout = f })
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("make snapshot: %w", err)
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return fmt.Errorf("make snapshot: %w", err)
	}
	return nil
}

// Restore makes etcd hold what the file says, and returns when the cluster works
// again. Whoever remembers what has not been is started anew: the API server and
// the programs that act on what it says.
func Restore(ctx context.Context, c spec.Cluster, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("open snapshot: %w", err)
	}
	defer f.Close()
	all := programs(c)
	for _, p := range all {
		if err := Control(c, p.node, control.Request{Name: p.name, Signal: syscall.SIGKILL, Hold: true}); err != nil {
			return fmt.Errorf("hold %s on %s: %w", p.name, p.node, err)
		}
	}
	err = within(c, LoadCommand, func(cmd *exec.Cmd) { cmd.Stdin = f })
	for _, p := range all {
		if e := Control(c, p.node, control.Request{Name: p.name, Start: true}); e != nil {
			err = errors.Join(err, fmt.Errorf("start %s on %s: %w", p.name, p.node, e))
		}
	}
	return errors.Join(err, Await(ctx, c))
}

type program struct{ node, name string }

// programs are those that Restore starts anew, the API server first.
func programs(c spec.Cluster) []program {
	var all []program
	for _, n := range c.Machines() {
		if n.ControlPlane() {
			for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
				all = append(all, program{n.Host(), name})
			}
		}
		if _, err := cell.PID(c, n.Host()); err == nil {
			all = append(all, program{n.Host(), "kubelet"})
		}
	}
	return all
}

// within runs this program on the first node.
func within(c spec.Cluster, command string, set func(*exec.Cmd)) error {
	cmd := exec.Command("/proc/self/exe", command)
	var said bytes.Buffer
	cmd.Stderr = &said
	set(cmd)
	if err := cell.Run(c, c.Machines()[0].Host(), cmd); err != nil {
		return errors.New(strings.TrimSpace(err.Error() + ": " + said.String())) // not an exec.ExitError, which has said all
	}
	return nil
}
