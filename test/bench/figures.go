// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/test/bench/figure"
)

// runFigures is the command "figures".
func runFigures(ctx context.Context, args []string) error {
	fs, b := newBench("figures")
	fs.StringVar(&b.programs.Agent, "agent", "bin/isthmus-agent", "the agent")
	fs.StringVar(&b.programs.Envoy, "envoy", "bin/envoy", "the agent's Envoy")
	which := fs.String("only", "", "scenarios, comma separated; others keep their results. All unless given")
	if err := fs.Parse(args); err != nil {
		return err
	}
	end, err := b.begin()
	if err != nil {
		return err
	}
	defer end()
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	var only []string
	if *which != "" {
		only = strings.Split(*which, ",")
	}
	return b.all(ctx, b.out, only)
}

// all runs scenarios, and writes what they gave after each.
func (b *bench) all(ctx context.Context, dir string, only []string) error {
	known := scenarios()
	for _, name := range only {
		if !slices.ContainsFunc(known, func(s scenario) bool { return s.name == name }) {
			return fmt.Errorf("there is no scenario %q", name)
		}
	}
	r, err := readResults(dir)
	if err != nil {
		return err
	}
	var failed []string
	for _, s := range known {
		if len(only) > 0 && !slices.Contains(only, s.name) {
			continue
		}
		begin := time.Now()
		res, err := s.run(ctx, b)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Printf("%-16s %6.1f s\n", s.name, time.Since(begin).Seconds())
		if err != nil {
			// The others are worth having all the same.
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", s.name, err)
			failed = append(failed, s.name)
			continue
		}
		for _, step := range res.Steps {
			fmt.Println("  " + brief(step))
		}
		r[s.name] = res
		if err := r.write(dir); err != nil {
			return err
		}
	}
	if err := drawAll(dir, r); err != nil {
		return err
	}
	if len(failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(failed, ", "))
	}
	return nil
}

// runDraw is the command "draw": results are drawn anew, and not measured.
func runDraw(_ context.Context, args []string) error {
	fs := flag.NewFlagSet("draw", flag.ContinueOnError)
	dir := fs.String("out", "docs/performance", "where results are and drawings go")
	if err := fs.Parse(args); err != nil {
		return err
	}
	r, err := readResults(*dir)
	if err != nil {
		return err
	}
	return drawAll(*dir, r)
}

// drawAll writes a drawing of each figure, and a table of all.
func drawAll(dir string, r results) error {
	all := r.figures()
	for _, f := range all {
		if err := os.WriteFile(filepath.Join(dir, f.Name+".svg"), f.SVG(), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "figures.md"), tables(all), 0o644)
}

// tables writes the figures as Markdown.
func tables(all []figure.Figure) []byte {
	var b strings.Builder
	b.WriteString("# Figures\n\nWritten by `make bench` from results.json; what they mean is in [README.md](README.md).\n")
	for _, f := range all {
		fmt.Fprintf(&b, "\n## %s\n\n![%s](%s.svg)\n\n| | isthmusd | istiod | ratio | bar | holds |\n|---|---|---|---|---|---|\n", f.Title, f.Title, f.Name)
		for _, p := range f.Panels {
			fmt.Fprintf(&b, "| **%s** | | | | | |\n", p.Unit)
			for _, r := range p.Rows {
				istiod, bar, holds := "–", "–", "–"
				if r.Istiod > 0 {
					istiod = figure.Short(r.Istiod)
				}
				if r.Bar > 0 {
					bar, holds = figure.Short(r.Bar), "yes"
					if !r.Holds() {
						holds = "**no**"
					}
				}
				fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", r.Label, figure.Short(r.Value), istiod, r.Ratio(), bar, holds)
			}
		}
	}
	return []byte(b.String())
}
