// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Command suite runs the tests in parts, cheapest first, and prints how long
// each part took. Arguments name the parts to run; none means all but those that
// run only when asked for.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// part is one slice of the tests: a name, what it needs, and go test's arguments.
type part struct {
	name string
	// prepare runs before the tests; nil for nothing.
	prepare func(context.Context) error
	dir     string
	args    []string
	env     []string
	// asked is set where the part runs only if it is named.
	asked bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "suite:", err)
		os.Exit(1)
	}
}

func parts(root string) []part {
	assets := "KUBEBUILDER_ASSETS=" + filepath.Join(root, "bin/assets")
	return []part{
		{name: "unit", args: []string{"-race", "./api/...", "./cmd/...", "./controllers/...", "./internal/...", "./charts/...",
			"./test/arch/...", "./test/contract/...", "./test/simulation/...", "./test/netlab/probe/...", "./test/bench/swarm/..."}},
		{name: "cluster", dir: "test/cluster", args: []string{"-timeout=30m", "./cmd/...", "./internal/...", "./acceptance/..."}},
		{name: "envtest", args: []string{"-race", "./test/envtest/...", "./internal/isthmusd"}, env: []string{assets}, prepare: link(root)},
		// Without a package named, go test shows what the tests print: the tally of rejections.
		{name: "netlab", dir: "test/netlab", args: []string{"-race", "-timeout=20m"}},
		// It prints what it measured, and fails only on what is wrong.
		{name: "bench", dir: "test/bench"},
		{name: "mutation", args: []string{"./test/mutation/..."}},
		{name: "e2e", args: []string{"-timeout=30m", "-parallel=16", "./test/e2e"}},
		{name: "e2e-full", args: []string{"-timeout=40m", "-v", "./test/e2e/full"}, asked: true},
	}
}

func run(ctx context.Context, only []string) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	all := parts(root)
	for _, name := range only {
		if !slices.ContainsFunc(all, func(p part) bool { return p.name == name }) {
			return fmt.Errorf("there is no part %q", name)
		}
	}
	var failed []string
	var table strings.Builder
	for _, p := range all {
		if !slices.Contains(only, p.name) && (len(only) > 0 || p.asked) {
			continue
		}
		start := time.Now()
		verdict := "ok"
		if err := p.run(ctx, root); err != nil {
			verdict = err.Error()
			failed = append(failed, p.name)
		}
		fmt.Fprintf(&table, "  %-10s %7.1f s  %s\n", p.name, time.Since(start).Seconds(), verdict)
		if ctx.Err() != nil {
			break
		}
	}
	fmt.Printf("\ntime per part\n%s", table.String())
	if len(failed) > 0 {
		return errors.New("failed: " + strings.Join(failed, ", "))
	}
	return ctx.Err()
}

func (p part) run(ctx context.Context, root string) error {
	fmt.Printf("\n== %s\n", p.name)
	if p.prepare != nil {
		if err := p.prepare(ctx); err != nil {
			return err
		}
	}
	cgo := "CGO_ENABLED=0"
	if slices.Contains(p.args, "-race") {
		cgo = "CGO_ENABLED=1"
	}
	c := exec.CommandContext(ctx, "go", append([]string{"test"}, p.args...)...)
	c.Dir = filepath.Join(root, p.dir)
	c.Env = append(append(os.Environ(), cgo, "ISTHMUS_ROOT="+root), p.env...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 30 * time.Second
	return c.Run()
}

// link puts the cluster's own binaries where envtest looks for them.
func link(root string) func(context.Context) error {
	return func(ctx context.Context) error {
		out, err := exec.CommandContext(ctx, filepath.Join(root, "bin/devcluster"), "assets").Output()
		if err != nil {
			return fmt.Errorf("devcluster assets: %w", err)
		}
		at := filepath.Join(root, "bin/assets")
		if err := os.Remove(at); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		dir, err := filepath.Abs(strings.TrimSpace(string(out)))
		if err != nil {
			return err
		}
		return os.Symlink(dir, at)
	}
}
