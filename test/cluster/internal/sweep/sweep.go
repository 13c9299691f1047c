// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package sweep removes what a cluster leaves on the machine when its processes
// have ended, whatever way they ended. The kernel removes namespaces, mounts and
// links by itself; cgroups and files are left.
package sweep

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cgroup"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/process"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
)

// Command is the argument with which the program calls itself to sweep.
const Command = "sweep"

const (
	logs = "logs"

	// AccessFile in the cluster's directory says where its kubeconfig was written.
	AccessFile = "kubeconfig-path"

	// PIDFile in the cluster's directory tells of the sweeper's process.
	PIDFile = "sweeper"
)

// Done is what a keeper says that ends as it should. One that ends without is a
// crash, after which the logs stay.
const Done = "done"

// timeout is how long the kernel may take to let go of processes and cgroups.
const timeout = 30 * time.Second

// Watch waits until the keeper, at the other end of the pipe, has ended, and then
// sweeps the cluster in dir.
func Watch(keeper io.Reader, dir string) error {
	last, err := io.ReadAll(keeper)
	if err != nil {
		return fmt.Errorf("listen to the keeper: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if string(last) != Done {
		return allBut(ctx, dir, logs)
	}
	if err := all(ctx, dir); err != nil {
		return err
	}
	RemoveParent(dir)
	return nil
}

// All removes everything of the cluster in dir, whose keeper has been told to end
// or never ran. If there is a sweeper, it is left to that.
func All(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := process.Await(ctx, filepath.Join(dir, PIDFile)); err != nil {
		return err //nolint:wrapcheck // says all
	}
	return all(ctx, dir)
}

// RemoveParent removes the directory of clusters with the last of them.
func RemoveParent(dir string) { _ = os.Remove(filepath.Dir(dir)) }

func all(ctx context.Context, dir string) error {
	if err := allBut(ctx, dir); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the cluster's directory: %w", err)
	}
	return nil
}

// allBut leaves the one entry of the directory. It goes on after an error, but not
// so far as to remove what a later sweep would need to know.
func allBut(ctx context.Context, dir string, keep ...string) error {
	c, err := spec.Load(dir)
	switch {
	case errors.Is(err, os.ErrNotExist): // never got so far, or was swept
	case err != nil:
		return err //nolint:wrapcheck // says all
	default:
		if err := end(ctx, c); err != nil {
			return err
		}
		if err := cgroup.Remove(ctx, c.Cgroup()); err != nil {
			return err //nolint:wrapcheck // says all
		}
	}
	if access, err := os.ReadFile(filepath.Join(dir, AccessFile)); err == nil {
		if err := os.Remove(string(access)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove kubeconfig: %w", err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("list the cluster's files: %w", err)
	}
	for _, e := range entries {
		if len(keep) > 0 && e.Name() == keep[0] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("remove the cluster's files: %w", err)
		}
	}
	return nil
}

// end sees the cells to their end, which began with the keeper's.
func end(ctx context.Context, c spec.Cluster) error {
	for _, name := range c.Cells() {
		err := process.Signal(c.PIDFile(name), syscall.SIGKILL)
		if err != nil && !errors.Is(err, process.ErrNotRunning) {
			return err //nolint:wrapcheck // says all
		}
	}
	for _, name := range c.Cells() {
		if err := process.Await(ctx, c.PIDFile(name)); err != nil {
			return err //nolint:wrapcheck // says all
		}
	}
	return nil
}
