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
	"strings"
	"sync"
	"time"
)

// share is what one part took of the whole.
type share struct {
	name        string
	start, took time.Duration
	err         error
}

func (s share) String() string {
	verdict := "ok"
	if s.err != nil {
		verdict = s.err.Error()
	}
	return fmt.Sprintf("  %-10s %7.1f s, from %5.1f s on  %s", s.name, s.took.Seconds(), s.start.Seconds(), verdict)
}

// runLanes runs those parts that wait beside those that compute, each kind in
// order, and prints the share of each.
func runLanes(ctx context.Context, all []part) error {
	var compute, wait []part
	for _, p := range all {
		if p.waits {
			wait = append(wait, p)
		} else {
			compute = append(compute, p)
		}
	}
	begin, busy := time.Now(), readProcessors()
	var beside []share
	var lane sync.WaitGroup
	screen := &screen{to: os.Stdout}
	lane.Go(func() { beside = runLane(ctx, begin, wait, screen) })
	shares := runLane(ctx, begin, compute, screen)
	lane.Wait()
	shares = append(shares, beside...)

	fmt.Print("\ntime per part; those that wait run beside those that compute\n")
	var failed []string
	for _, s := range shares {
		if fmt.Println(s); s.err != nil {
			failed = append(failed, s.name)
		}
	}
	fmt.Printf("  %-10s %7.1f s%s\n", "all", time.Since(begin).Seconds(), busy.since())
	if len(failed) > 0 {
		return errors.New("failed: " + strings.Join(failed, ", "))
	}
	return ctx.Err()
}

func runLane(ctx context.Context, begin time.Time, parts []part, to *screen) []share {
	var out []share
	for _, p := range parts {
		if ctx.Err() != nil {
			break
		}
		w := to.named(p.name)
		start := time.Now()
		err := p.test(ctx, w)
		w.flush()
		out = append(out, share{name: p.name, start: start.Sub(begin), took: time.Since(start), err: err})
	}
	return out
}

// screen is where all parts print, line by line.
type screen struct {
	mu sync.Mutex
	to io.Writer
}

// lines writes each line after the name of who wrote it.
type lines struct {
	screen *screen
	name   string
	rest   []byte
}

func (s *screen) named(name string) *lines { return &lines{screen: s, name: name} }

// Write keeps what is not a whole line yet.
func (l *lines) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	end := bytes.LastIndexByte(l.rest, '\n') + 1
	whole := l.rest[:end]
	l.rest = append([]byte(nil), l.rest[end:]...)
	return len(b), l.print(whole)
}

// flush writes what has no end of line.
func (l *lines) flush() {
	if len(l.rest) > 0 {
		_ = l.print(append(l.rest, '\n'))
	}
	l.rest = nil
}

func (l *lines) print(whole []byte) error {
	l.screen.mu.Lock()
	defer l.screen.mu.Unlock()
	for line := range bytes.Lines(whole) {
		if _, err := fmt.Fprintf(l.screen.to, "%-8s | %s", l.name, line); err != nil {
			return err
		}
	}
	return nil
}

// processors is how long this machine's have been idle, and have been at all, in
// ticks since it started.
type processors struct{ idle, all float64 }

func readProcessors() processors {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return processors{}
	}
	var p processors
	first, _, _ := strings.Cut(string(b), "\n")
	for i, text := range strings.Fields(first) {
		var n float64
		if _, err := fmt.Sscan(text, &n); err != nil || i > 8 { // guests' time is in users' already
			continue
		}
		p.all += n
		if i == 4 || i == 5 { // idle, and waiting for a disk
			p.idle += n
		}
	}
	return p
}

// since says how busy they have been.
func (p processors) since() string {
	now := readProcessors()
	if now.all <= p.all {
		return ""
	}
	return fmt.Sprintf(", processors busy %.0f %%", 100*(1-(now.idle-p.idle)/(now.all-p.all)))
}
