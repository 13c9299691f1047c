// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Command suite runs the tests in parts and prints how long each part took.
// Arguments name the parts to run; none means all but those that run only when
// asked for. Parts that mostly wait run in a lane of their own, beside those that
// compute; in each lane the cheapest comes first.
//
// With -times each part runs so many times in a row, one part after the other:
//
//	suite -times 20 netlab
//	suite -times 20 -run TestCluster/^journey e2e
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func main() {
	times := flag.Int("times", 1, "run each part so many times in a row, and keep what failed runs printed in .work/repeat")
	only := flag.String("run", "", "only the tests that match, as go test -run takes it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *times, *only, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "suite:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, times int, only string, names []string) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	chosen, err := choose(parts(root), names)
	if err != nil {
		return err
	}
	for i := range chosen {
		if chosen[i].root = root; only != "" {
			chosen[i].flags = append(slices.Clone(chosen[i].flags), "run="+only)
		}
	}
	if times > 1 {
		return repeat(ctx, chosen, times, filepath.Join(root, ".work/repeat"))
	}
	return runLanes(ctx, chosen)
}

// choose takes the parts that are named, or those that need not be.
func choose(all []part, names []string) ([]part, error) {
	for _, name := range names {
		if !slices.ContainsFunc(all, func(p part) bool { return p.name == name }) {
			return nil, fmt.Errorf("there is no part %q", name)
		}
	}
	return slices.DeleteFunc(all, func(p part) bool {
		return !slices.Contains(names, p.name) && (len(names) > 0 || p.asked)
	}), nil
}

func parts(root string) []part {
	assets := "KUBEBUILDER_ASSETS=" + filepath.Join(root, "bin/assets")
	return []part{
		{name: "unit", race: true, packages: []string{"./api/...", "./cmd/...", "./controllers/...", "./internal/...", "./charts/...",
			"./test/arch/...", "./test/contract/...", "./test/simulation/...", "./test/suite/...", "./test/netlab/probe/...", "./test/bench/swarm/..."}},
		{name: "cluster", dir: "test/cluster", flags: []string{"timeout=30m"}, packages: []string{"./cmd/...", "./internal/...", "./acceptance/..."}, waits: true},
		{name: "envtest", race: true, flags: []string{"timeout=30m"}, packages: []string{"./test/envtest/...", "./internal/isthmusd"}, env: []string{assets}, prepare: link(root)},
		// Without a package named, go test shows what the tests print: the tally of rejections.
		{name: "netlab", dir: "test/netlab", race: true, flags: []string{"timeout=20m"}},
		// It prints what it measured, and fails only on what is wrong.
		{name: "bench", dir: "test/bench"},
		{name: "mutation", packages: []string{"./test/mutation/..."}},
		{name: "e2e", flags: []string{"timeout=30m", "parallel=16"}, packages: []string{"./test/e2e"}, waits: true},
		{name: "e2e-full", flags: []string{"timeout=40m", "v"}, packages: []string{"./test/e2e/full"}, asked: true, waits: true},
	}
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
