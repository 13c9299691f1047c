// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package keeper is the process that keeps a cluster: it lays its network, starts
// its cells, starts a node's again when it is told to, and ends all of them by its
// own end.
package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cgroup"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/config"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/outside"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/process"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/sweep"
)

// Command is the argument with which the program calls itself to keep a cluster.
const Command = "keep"

// PIDFile in the cluster's directory tells of the keeper's process.
const PIDFile = "keeper"

// The files that a keeper inherits.
const (
	ProgressFD    = 3 // a pipe to whoever ordered the cluster
	APIListenerFD = 4 // listens on 127.0.0.1 for the API server's clients
)

// Order is what a keeper reads first from its standard input. Whoever gave it
// keeps the other end open: if it closes before the cluster is ready, nobody waits
// for the cluster any more, and it ends.
type Order struct {
	Cluster    spec.Cluster `json:"cluster"`
	Access     string       `json:"access"`     // where to write the kubeconfig
	Foreground bool         `json:"foreground"` // end even later if the other end closes
}

// errAbandoned says that whoever ordered the cluster is gone.
var errAbandoned = errors.New("nobody waits for the cluster any more")

// Run keeps the cluster that is ordered on standard input until the context ends
// or something goes wrong that nothing can start again.
func Run(ctx context.Context) error {
	var o Order
	d := json.NewDecoder(os.Stdin)
	if err := d.Decode(&o); err != nil {
		return fmt.Errorf("read order: %w", err)
	}
	sweeper, err := begin(o)
	if err != nil {
		return err
	}
	abandoned := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // nothing more is said: it returns when the other end closes
		close(abandoned)
	}()
	k := &keeper{
		Order: o, abandoned: abandoned, cells: map[string]*running{},
		progress: os.NewFile(ProgressFD, "progress"), listener: os.NewFile(APIListenerFD, "listener"),
		said: make(chan line), ended: make(chan *running), commands: make(chan command),
	}
	err = k.keep(ctx)
	k.killAll()
	fmt.Println("the end:", err)
	if err == nil || errors.Is(err, errAbandoned) {
		_, _ = io.WriteString(sweeper, sweep.Done) // if it is gone, the next command sweeps
	}
	return err
}

// begin makes the files that are there before all others, and sees to it that they
// will be swept.
func begin(o Order) (sweeper io.Writer, err error) {
	c := o.Cluster
	if err := os.MkdirAll(c.Path("logs"), 0o755); err != nil {
		return nil, fmt.Errorf("make the cluster's directory: %w", err)
	}
	if err := process.Remember(c.Path(PIDFile), os.Getpid()); err != nil {
		return nil, err //nolint:wrapcheck // says all
	}
	log, err := os.OpenFile(c.Path("logs", "keeper.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	for _, fd := range []int{1, 2} { // so that a panic shows there too
		if err := unix.Dup3(int(log.Fd()), fd, 0); err != nil { //nolint:gosec // a file descriptor
			return nil, fmt.Errorf("log to %s: %w", log.Name(), err)
		}
	}
	if sweeper, err = startSweeper(c, log); err != nil {
		return nil, err
	}
	if err := c.Save(); err != nil {
		return nil, err //nolint:wrapcheck // says all
	}
	if err := os.WriteFile(c.Path(sweep.AccessFile), []byte(o.Access), 0o644); err != nil {
		return nil, fmt.Errorf("remember the kubeconfig: %w", err)
	}
	return sweeper, nil
}

// startSweeper starts the process that this one's end wakes, by the pipe that then
// closes, to remove what the cluster leaves.
func startSweeper(c spec.Cluster, log *os.File) (io.Writer, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", sweep.Command, c.Dir)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = "/", r, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the sweeper: %w", err)
	}
	if err := process.Remember(c.Path(sweep.PIDFile), cmd.Process.Pid); err != nil {
		return nil, err //nolint:wrapcheck // says all
	}
	go func() { _ = cmd.Wait() }() // it ends after this process, unless it is killed
	return w, nil
}

// prepare writes what the cells need to start.
func (k *keeper) prepare() error {
	c := k.Cluster
	if err := cgroup.Make(c.Cgroup()); err != nil {
		return err //nolint:wrapcheck // says all
	}
	if err := config.Write(c, k.Access); err != nil {
		return err //nolint:wrapcheck // says all
	}
	return outside.Prepare(c) //nolint:wrapcheck // says all
}
