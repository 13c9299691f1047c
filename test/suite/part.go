// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// part is one slice of the tests: a name, what it needs, and what go test is told.
type part struct {
	name string
	// prepare runs before the tests; nil for nothing.
	prepare func(context.Context) error
	// root is the repository; dir, below it, is where packages are named from.
	root, dir string
	race      bool
	// packages to test; none means that of dir.
	packages []string
	// flags of the tests, without their dash.
	flags []string
	env   []string
	// asked is set where the part runs only if it is named, waits where it leaves
	// processors idle most of the time.
	asked, waits bool
}

// test compiles and runs the part's tests, as go test does.
func (p part) test(ctx context.Context, out io.Writer) error {
	if p.prepare != nil {
		if err := p.prepare(ctx); err != nil {
			return err
		}
	}
	// make lint vets, and not every dependency anew for the race detector.
	args := append([]string{"test", "-vet=off"}, p.racing()...)
	for _, f := range p.flags {
		args = append(args, "-"+f)
	}
	return p.command(ctx, out, "go", append(args, p.packages...)...).Run()
}

func (p part) racing() []string {
	if p.race {
		return []string{"-race"}
	}
	return nil
}

// command runs where the part's packages are named from, until it ends or is
// interrupted.
func (p part) command(ctx context.Context, out io.Writer, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, name, args...)
	cgo := "CGO_ENABLED=0"
	if p.race {
		cgo = "CGO_ENABLED=1"
	}
	c.Dir = filepath.Join(p.root, p.dir)
	c.Env = append(append(os.Environ(), cgo, "ISTHMUS_ROOT="+p.root), p.env...)
	c.Stdout, c.Stderr = out, out
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 30 * time.Second
	return c
}
