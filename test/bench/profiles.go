// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/isthmus-mesh/isthmus/test/bench/lab"
	"github.com/isthmus-mesh/isthmus/test/bench/load"
	"github.com/isthmus-mesh/isthmus/test/bench/measure"
	"github.com/isthmus-mesh/isthmus/test/bench/swarm"
)

// profiled is a profile of isthmusd and what it did meanwhile.
type profiled struct{ title, file string }

// profileTime is how long CPU is profiled, unless what is looked at ends sooner.
const profileTime = 5 * time.Second

// runProfiles is the command "profiles".
func runProfiles(ctx context.Context, args []string) error {
	fs, b := newBench("profiles")
	if err := fs.Parse(args); err != nil {
		return err
	}
	end, err := b.begin()
	if err != nil {
		return err
	}
	defer end()
	all, err := b.profiles(ctx)
	if err != nil {
		return err
	}
	var out strings.Builder
	out.WriteString("# Where time and memory go\n\nWritten by `make bench`: profiles of isthmusd, the largest entries. Flat is what a function does itself;\n" +
		"the second list is the project's own functions with all that they call.\n")
	for _, p := range all {
		text, err := top(ctx, p.file)
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "\n## %s\n\n```\n%s```\n", p.title, text)
	}
	return os.WriteFile(filepath.Join(b.out, "profiles.md"), []byte(out.String()), 0o644)
}

// profiles takes all profiles.
func (b *bench) profiles(ctx context.Context) ([]profiled, error) {
	var out []profiled
	_, err := b.session(ctx, b.usual(), 0, swarm.Delta, func(s *measure.Session, _ *result) error {
		during := func(title string, f func() error) error {
			file := filepath.Join(b.dir, fmt.Sprintf("%d.pb.gz", len(out)))
			out = append(out, profiled{title, file})
			return profileDuring(ctx, s.Lab, file, f)
		}
		until := func(f func() (*measure.Step, error)) func() error {
			end := time.Now().Add(profileTime)
			return func() error {
				for time.Now().Before(end) {
					if _, err := f(); err != nil {
						return err
					}
				}
				return nil
			}
		}
		if err := during(fmt.Sprintf("%d proxies connect, cold", b.some), func() error {
			_, err := s.Connect("connect", b.some, 0)
			return err
		}); err != nil {
			return err
		}
		heap := filepath.Join(b.dir, "heap.pb.gz")
		out = append(out, profiled{fmt.Sprintf("Memory in use with %d proxies", b.some), heap})
		if err := s.Lab.Profile(ctx, "heap?gc=1", heap); err != nil {
			return err
		}
		if err := during("One route after the other changes", until(s.Route)); err != nil {
			return err
		}
		if err := during("One service after the other is added", until(s.NewService)); err != nil {
			return err
		}
		if err := during("200 endpoints a second change", func() error {
			_, err := s.Churn(200, profileTime)
			return err
		}); err != nil {
			return err
		}
		return during("All proxies connect anew, again and again", until(s.Storm))
	})
	if err != nil {
		return nil, err
	}
	more, err := b.loadProfiles(ctx)
	return append(out, more...), err
}

// loadProfiles profiles injection and the CA.
func (b *bench) loadProfiles(ctx context.Context) ([]profiled, error) {
	inject, issue := filepath.Join(b.dir, "inject.pb.gz"), filepath.Join(b.dir, "issue.pb.gz")
	err := inLab(ctx, lab.Options{Program: b.isthmusd, Shape: pods(100), Dir: b.dir}, func(l *lab.Lab) error {
		err := profileDuring(ctx, l, inject, func() error {
			_, err := measure.Inject(ctx, l, 200, profileTime)
			return err
		})
		if err != nil {
			return err
		}
		return profileDuring(ctx, l, issue, func() error {
			_, err := measure.Issue(ctx, l, load.ByCertificate, 5000)
			return err
		})
	})
	return []profiled{{"200 pods a second are injected", inject}, {"Certificates, as fast as they come", issue}}, err
}

// profileDuring profiles the control plane's CPU while f runs.
func profileDuring(ctx context.Context, l *lab.Lab, file string, f func() error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return l.Profile(ctx, fmt.Sprintf("profile?seconds=%d", int(profileTime.Seconds())), file)
	})
	g.Go(f)
	return g.Wait()
}

// top is a profile's largest entries: eight by what they do themselves, and sixteen of
// the project's own by all that they cause.
func top(ctx context.Context, file string) (string, error) {
	list := func(args ...string) ([]string, error) {
		out, err := exec.CommandContext(ctx, "go", append([]string{"tool", "pprof", "-top"}, append(args, file)...)...).Output()
		if err != nil {
			return nil, fmt.Errorf("go tool pprof: %w", err)
		}
		return strings.Split(strings.TrimRight(string(out), "\n"), "\n"), nil
	}
	flat, err := list("-nodecount=8")
	if err != nil {
		return "", err
	}
	cum, err := list("-cum", "-nodecount=2000", "-nodefraction=0")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, line := range flat {
		for _, head := range []string{"Duration", "Showing", "  "} {
			if strings.HasPrefix(line, head) {
				fmt.Fprintln(&b, line)
			}
		}
	}
	b.WriteString("\n")
	shown := 0
	const own = "github.com/isthmus-mesh/isthmus/internal/"
	for _, line := range cum {
		if shown < 16 && strings.Contains(line, own) {
			fmt.Fprintln(&b, strings.Replace(line, own, "", 1))
			shown++
		}
	}
	return b.String(), nil
}
