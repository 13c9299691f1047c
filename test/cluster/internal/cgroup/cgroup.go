// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package cgroup makes and removes the cgroups that a cluster's pods run in.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const root = "/sys/fs/cgroup"

// hierarchies are the mounted cgroup hierarchies of one kind, cgroup for v1 or
// cgroup2, by their directories.
func hierarchies(kind string) ([]string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, fmt.Errorf("list cgroup hierarchies: %w", err)
	}
	var dirs []string
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) > 2 && f[2] == kind && filepath.Dir(f[1]) == root {
			dirs = append(dirs, f[1])
		}
	}
	return dirs, nil
}

// Make makes the cgroup, whose parent has to be there, in every hierarchy.
func Make(name string) error {
	dirs, err := hierarchies("cgroup")
	if err != nil {
		return err
	}
	if len(dirs) == 0 {
		return errors.New("this machine has no cgroup v1, without which the cluster has not been tried")
	}
	for _, d := range dirs {
		if err := os.Mkdir(filepath.Join(d, name), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("make cgroup: %w", err)
		}
	}
	// A new cpuset has no CPU and no memory, and nothing can be put into it.
	for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
		b, err := os.ReadFile(filepath.Join(root, "cpuset", f))
		if err != nil {
			return fmt.Errorf("read %s: %w", f, err)
		}
		if err := os.WriteFile(filepath.Join(root, "cpuset", name, f), b, 0); err != nil {
			return fmt.Errorf("write %s: %w", f, err)
		}
	}
	return nil
}

// Remove tries until the kernel has let go of the processes that were in
// them or the context ends.
func Remove(ctx context.Context, name string) error {
	dirs, err := hierarchies("cgroup")
	if err != nil {
		return err
	}
	unified, err := hierarchies("cgroup2") // runc puts containers there too
	if err != nil {
		return err
	}
	dirs = append(dirs, unified...)
	for {
		var left []error
		for _, d := range dirs {
			left = append(left, removeTree(filepath.Join(d, name)))
		}
		err := errors.Join(left...)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove cgroups: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// removeTree removes directories from the leaves up: the files in them are the
// kernel's and go with them.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list cgroup: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	return nil
}
