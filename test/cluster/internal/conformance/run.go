// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/verdict"
)

// Options say what to run the cases with and who hears how they end.
type Options struct {
	Program    string // the suite, see package binaries
	Kubectl    string
	Kubeconfig string
	Logs       string // directory for what the suite prints
	Processes  int    // how many cases run at a time
	Progress   io.Writer
}

// Figures are how a suite ended.
type Figures struct {
	Passed, Failed int
	Skipped        map[string]int // by reason
	Took           time.Duration
}

// Run runs the suite's cases. That some fail is no error.
func Run(ctx context.Context, s Suite, o Options) (Figures, error) {
	f := Figures{Skipped: map[string]int{}}
	names, err := exec.CommandContext(ctx, o.Program, "-list").Output()
	if err != nil {
		return f, fmt.Errorf("list the cases: %w", err)
	}
	cases, out, err := s.Choose(strings.Split(strings.TrimSpace(string(names)), "\n"))
	if err != nil {
		return f, err
	}
	for why, n := range out {
		f.Skipped[why] += n
	}
	if err := os.MkdirAll(o.Logs, 0o755); err != nil {
		return f, fmt.Errorf("make directory for logs: %w", err)
	}
	start := time.Now()
	verdicts, errs := make(chan verdict.Verdict), make(chan error, o.Processes)
	var running sync.WaitGroup
	for i, share := range deal(cases, o.Processes) {
		p := process{Options: o, base: filepath.Join(o.Logs, fmt.Sprintf("%s-%d", s.Name, i))}
		running.Go(func() { errs <- p.run(ctx, share, verdicts) })
	}
	go func() { running.Wait(); close(verdicts); close(errs) }()
	seen := 0
	for v := range verdicts {
		seen++
		f.count(v)
		say(o.Progress, v, seen, len(cases))
	}
	f.Took = time.Since(start)
	var failures []error
	for err := range errs {
		failures = append(failures, err)
	}
	if err := errors.Join(failures...); err != nil {
		return f, err
	}
	if seen != len(cases) {
		return f, fmt.Errorf("of %d cases only %d were run; see %s", len(cases), seen, o.Logs)
	}
	return f, nil
}

// deal gives each process its cases.
func deal(cases []string, processes int) [][]string {
	shares := make([][]string, min(processes, len(cases)))
	for i, c := range cases {
		shares[i%len(shares)] = append(shares[i%len(shares)], c)
	}
	return shares
}

func (f *Figures) count(v verdict.Verdict) {
	switch {
	case v.Failed():
		f.Failed++
	case v.State == verdict.Skipped:
		f.Skipped[v.Why]++
	default:
		f.Passed++
	}
}

func say(w io.Writer, v verdict.Verdict, n, all int) {
	fmt.Fprintf(w, "[%*d/%d] %-7s %6.1f s  %s\n", len(fmt.Sprint(all)), n, all, v.State, v.Seconds, v.Case)
	if v.Why == "" {
		return
	}
	why := strings.Split(strings.TrimSpace(v.Why), "\n")
	for _, line := range why[:min(len(why), 3)] { // of some, the rest is whole objects
		fmt.Fprintf(w, "        %s\n", line)
	}
	if v.Output != "" {
		fmt.Fprintf(w, "        all of it: %s\n", v.Output)
	}
}

// process is one of several that share the cases.
type process struct {
	Options
	base string // of the names of its files
}

func (p process) run(ctx context.Context, cases []string, verdicts chan<- verdict.Verdict) error {
	list := p.base + ".cases"
	if err := os.WriteFile(list, []byte(strings.Join(cases, "\n")), 0o644); err != nil {
		return fmt.Errorf("write cases: %w", err)
	}
	log, err := os.Create(p.base + ".log")
	if err != nil {
		return fmt.Errorf("make log: %w", err)
	}
	defer log.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer r.Close()
	c := exec.CommandContext(ctx, p.Program, "-cases", list, "-events", "/dev/fd/3",
		"--kubeconfig", p.Kubeconfig, "--kubectl-path", p.Kubectl, "--provider", "skeleton", "--e2e-output-dir", p.Logs)
	c.Stdout, c.Stderr, c.ExtraFiles = log, log, []*os.File{w}
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) } // it cleans up
	c.WaitDelay = time.Minute
	err = c.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("start the suite: %w", err)
	}
	told := pass(r, p.base, verdicts)
	var exit *exec.ExitError
	if err := c.Wait(); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) { // 1 is that cases failed
		return fmt.Errorf("run the suite: %w; see %s", err, log.Name())
	}
	return told
}

// pass passes verdicts on and puts the output of cases that failed into files, whose
// names it passes instead.
func pass(r io.Reader, base string, verdicts chan<- verdict.Verdict) error {
	failures := 0
	for d := json.NewDecoder(r); ; {
		var v verdict.Verdict
		if err := d.Decode(&v); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read how the cases end: %w", err)
		}
		if v.Failed() {
			failures++
			file := fmt.Sprintf("%s-failure-%d.log", base, failures)
			if err := os.WriteFile(file, []byte(v.Case+"\n"+v.Why+"\n"+v.Output), 0o644); err != nil {
				return fmt.Errorf("keep the output of a failure: %w", err)
			}
			v.Output = file
		}
		verdicts <- v
	}
}

// String is one line for people.
func (f Figures) String() string {
	var b strings.Builder
	skipped := 0
	for _, n := range f.Skipped {
		skipped += n
	}
	fmt.Fprintf(&b, "%d passed, %d failed, %d skipped in %s", f.Passed, f.Failed, skipped, f.Took.Round(time.Second))
	for _, why := range slices.Sorted(maps.Keys(f.Skipped)) {
		fmt.Fprintf(&b, "\n  %d skipped: %s", f.Skipped[why], why)
	}
	return b.String()
}
