// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// tally is what came of a part's runs.
type tally struct {
	name             string
	passed, failed   int
	fastest, slowest time.Duration
}

func (t *tally) add(took time.Duration, err error) {
	if t.passed+t.failed == 0 {
		t.fastest = took
	}
	t.fastest, t.slowest = min(t.fastest, took), max(t.slowest, took)
	if err == nil {
		t.passed++
	} else {
		t.failed++
	}
}

func (t *tally) String() string {
	return fmt.Sprintf("%s: %d runs, %d passed, %d failed, %.0f to %.0f s each",
		t.name, t.passed+t.failed, t.passed, t.failed, t.fastest.Seconds(), t.slowest.Seconds())
}

// repeat compiles each part's tests and runs them so many times in a row. What a
// failed run printed is kept in the directory.
func repeat(ctx context.Context, parts []part, times int, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	programs, err := os.MkdirTemp(dir, "programs-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(programs) }()
	var tallies []*tally
	for _, p := range parts {
		tests, err := p.compile(ctx, programs)
		if err != nil {
			return fmt.Errorf("compile %s: %w", p.name, err)
		}
		t := &tally{name: p.name}
		tallies = append(tallies, t)
		for i := 1; i <= times && ctx.Err() == nil; i++ {
			p.once(ctx, tests, t, filepath.Join(dir, fmt.Sprintf("%s-%d.log", p.name, i)))
		}
	}
	failed := false
	for _, t := range tallies {
		fmt.Println(t)
		failed = failed || t.failed > 0
	}
	if failed {
		return errors.New("not every run passed: what failed ones printed is in " + dir)
	}
	return ctx.Err()
}

// once runs all tests, says what came of it, and keeps the log if they failed. A
// run that was interrupted does not count.
func (p part) once(ctx context.Context, tests []compiled, t *tally, log string) {
	start := time.Now()
	err := p.logged(ctx, tests, log)
	if ctx.Err() != nil {
		return
	}
	t.add(time.Since(start), err)
	fmt.Printf("%s %s %d: %.1f s: ", start.UTC().Format(time.TimeOnly), p.name, t.passed+t.failed, time.Since(start).Seconds())
	if err == nil {
		fmt.Println("ok")
		return
	}
	fmt.Printf("%v: %s: %s\n", err, strings.Join(failures(log), ", "), log)
}

// logged runs all tests with this file as their output, which stays if one fails.
func (p part) logged(ctx context.Context, tests []compiled, log string) error {
	f, err := os.Create(log)
	if err != nil {
		return err
	}
	defer f.Close()
	var errs []error
	for _, c := range tests {
		errs = append(errs, p.execute(ctx, c, f))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.Remove(log)
}

// failures names the tests that failed, as the log has them.
func failures(log string) []string {
	b, err := os.ReadFile(log)
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "--- FAIL: "); ok {
			name, _, _ = strings.Cut(name, " ")
			out = append(out, name)
		}
	}
	return out
}

// compiled is the test program of a package, and where it runs.
type compiled struct{ program, dir string }

// compile makes the test programs of all the part's packages that have tests.
func (p part) compile(ctx context.Context, to string) ([]compiled, error) {
	if p.prepare != nil {
		if err := p.prepare(ctx); err != nil {
			return nil, err
		}
	}
	var listed bytes.Buffer
	list := p.command(ctx, &listed, "go", append([]string{
		"list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}",
	}, p.packages...)...)
	list.Stderr = os.Stderr
	if err := list.Run(); err != nil {
		return nil, err
	}
	var out []compiled
	for line := range strings.Lines(listed.String()) {
		path, dir, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		c := compiled{program: filepath.Join(to, fmt.Sprintf("%s-%d.test", p.name, len(out))), dir: dir}
		args := slices.Concat([]string{"test", "-c", "-o", c.program}, p.racing(), []string{path})
		if err := p.command(ctx, os.Stderr, "go", args...).Run(); err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// execute runs a test program as go test does.
func (p part) execute(ctx context.Context, c compiled, out io.Writer) error {
	args := []string{"-test.timeout=10m", "-test.paniconexit0"}
	for _, f := range p.flags {
		args = append(args, "-test."+f)
	}
	cmd := p.command(ctx, out, c.program, args...)
	cmd.Dir = c.dir
	return cmd.Run()
}
