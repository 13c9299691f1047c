// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// stages are the packages whose benchmarks are compared.
var stages = []string{
	"./internal/isthmusd/ingest", "./internal/isthmusd/generate", "./internal/isthmusd/catalog",
	"./internal/isthmusd/xds", "./internal/isthmusd/webhook", "./internal/inject", "./internal/pki",
}

// units of a benchmark that are compared; less is better.
var units = []string{"ns/op", "B/op", "allocs/op"}

// side is one of the two commits: its tests, built.
type side struct {
	name, root, tests string
	// values of each benchmark and unit, of all rounds.
	values map[string][]float64
}

// runCompare is the command "compare". Both sides run in turn, so that what else
// the machine does meets both.
func runCompare(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("compare", flag.ContinueOnError)
	ref := fs.String("ref", "", "the commit to compare with")
	rounds := fs.Int("rounds", 5, "how often each side runs")
	pattern := fs.String("bench", ".", "benchmarks to run")
	each := fs.String("time", "100ms", "how long each benchmark runs")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *ref == "" {
		return errors.New("-ref: which commit to compare with is missing, for instance -ref main")
	}
	tmp, remove, err := temporary()
	if err != nil {
		return err
	}
	defer remove()
	tree := filepath.Join(tmp, "tree")
	if err := quietly(ctx, ".", "git", "worktree", "add", "--detach", "--quiet", tree, *ref); err != nil {
		return err
	}
	defer func() {
		_ = quietly(context.WithoutCancel(ctx), ".", "git", "worktree", "remove", "--force", tree) // only the temporary one
	}()
	sides := []*side{
		{name: *ref, root: tree, tests: filepath.Join(tmp, "old"), values: map[string][]float64{}},
		{name: "here", root: ".", tests: filepath.Join(tmp, "new"), values: map[string][]float64{}},
	}
	for _, s := range sides {
		if err := s.build(ctx); err != nil {
			return fmt.Errorf("build %s: %w", s.name, err)
		}
	}
	for range *rounds {
		for _, s := range sides {
			if err := s.round(ctx, *pattern, *each); err != nil {
				return fmt.Errorf("run %s: %w", s.name, err)
			}
		}
	}
	fmt.Print(compared(sides[0], sides[1]))
	return nil
}

// quietly runs a command and shows what it says only if it fails.
func quietly(ctx context.Context, dir, name string, args ...string) error {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func (s *side) build(ctx context.Context) error {
	if err := os.MkdirAll(s.tests, 0o755); err != nil {
		return err
	}
	for _, p := range stages {
		if _, err := os.Stat(filepath.Join(s.root, p)); err != nil {
			continue // that commit has no such package
		}
		if err := quietly(ctx, s.root, "go", "test", "-c", "-o", s.test(p), p); err != nil {
			return err
		}
	}
	return nil
}

func (s *side) test(p string) string { return filepath.Join(s.tests, filepath.Base(p)+".test") }

// round runs every benchmark once and notes what it took.
func (s *side) round(ctx context.Context, pattern, each string) error {
	for _, p := range stages {
		if _, err := os.Stat(s.test(p)); err != nil {
			continue
		}
		c := exec.CommandContext(ctx, s.test(p), "-test.run=^$", "-test.bench="+pattern, "-test.benchtime="+each, "-test.benchmem")
		c.Dir = filepath.Join(s.root, p)
		c.Stderr = os.Stderr
		out, err := c.Output()
		if err != nil {
			return fmt.Errorf("benchmarks of %s: %w", p, err)
		}
		s.note(filepath.Base(p), out)
	}
	return nil
}

// processors end a benchmark's name.
var processors = regexp.MustCompile(`-\d+$`)

// note reads lines as "BenchmarkName-2  100  5 ns/op  3 B/op".
func (s *side) note(pkg string, out []byte) {
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name := processors.ReplaceAllString(strings.TrimPrefix(f[0], "Benchmark"), "")
		for i := 2; i+1 < len(f); i += 2 {
			if v, err := strconv.ParseFloat(f[i], 64); err == nil && slices.Contains(units, f[i+1]) {
				key := pkg + "." + name + "\t" + f[i+1]
				s.values[key] = append(s.values[key], v)
			}
		}
	}
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// compared is a table of medians and their ratios.
func compared(old, now *side) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-58s %-10s %14s %14s %8s\n", "median of rounds", "", old.name, now.name, "ratio")
	for _, key := range slices.Sorted(maps.Keys(now.values)) {
		name, unit, _ := strings.Cut(key, "\t")
		was, is := median(old.values[key]), median(now.values[key])
		ratio := "new"
		if len(old.values[key]) > 0 {
			ratio = "same"
			if was != is && was > 0 {
				ratio = fmt.Sprintf("%.2f", is/was)
			}
		}
		fmt.Fprintf(&b, "%-58s %-10s %14.0f %14.0f %8s\n", name, unit, was, is, ratio)
	}
	return b.String()
}
