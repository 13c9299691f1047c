// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package lifecycle runs the long-lived parts of a program together: all start,
// the first that ends brings the others down, and they go in the reverse of the
// order in which they were listed, each with its time to leave. Every goroutine of
// an engine is a Part, or is waited for by one.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// Part is one long-lived activity.
type Part struct {
	// Name for messages.
	Name string
	// Run works until its context ends, then returns nil or the context's error.
	// Returning earlier, with or without an error, ends the program.
	Run func(ctx context.Context) error
	// Grace is how long Run may take to return once its context has ended; 0 means
	// DefaultGrace. Later parts have gone by then, earlier ones still run.
	Grace time.Duration
}

// DefaultGrace is the time to leave of a Part that names none.
const DefaultGrace = 10 * time.Second

// ErrStopped is wrapped when a Part ended although nobody asked it to.
var ErrStopped = errors.New("ended by itself")

// LateError is returned when a Part did not return within its grace. Its
// goroutine is abandoned; the program should exit.
type LateError struct {
	Part  string
	Grace time.Duration
}

func (e *LateError) Error() string {
	return fmt.Sprintf("%s did not stop within %s", e.Part, e.Grace)
}

// Run starts all parts and returns when all have gone. It returns nil if ctx ended
// and every part left in time without an error. Otherwise the error that comes
// first is the cause, joined by what went wrong on the way out.
func Run(ctx context.Context, parts ...Part) error {
	// The parts' contexts do not descend from ctx: each ends at its turn.
	base := context.WithoutCancel(ctx)
	ended := make(chan outcome, len(parts))
	running := make([]*member, len(parts))
	for i, p := range parts {
		running[i] = start(base, p, ended)
	}
	var errs []error
	if len(parts) > 0 {
		select {
		case <-ctx.Done():
		case o := <-ended:
			errs = append(errs, o.cause())
		}
	}
	for i := len(running) - 1; i >= 0; i-- {
		if err := running[i].stop(); err != nil && !contains(errs, err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

type outcome struct {
	part string
	err  error
}

// cause is the error of a part that ended first, while nobody had asked it to.
func (o outcome) cause() error {
	if o.err == nil {
		return fmt.Errorf("%s: %w", o.part, ErrStopped)
	}
	return fmt.Errorf("%s: %w", o.part, o.err)
}

type member struct {
	part   Part
	cancel context.CancelFunc
	done   chan struct{}
	err    error // valid once done is closed
}

func start(ctx context.Context, p Part, ended chan<- outcome) *member {
	ctx, cancel := context.WithCancel(ctx)
	m := &member{part: p, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(m.done)
		m.err = guarded(ctx, p)
		ended <- outcome{part: p.Name, err: m.err}
	}()
	return m
}

// guarded turns a panic into an error, so that the other parts can leave in order.
func guarded(ctx context.Context, p Part) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return p.Run(ctx)
}

// stop ends the member and waits for it. A context's error is how a part says that
// it was told to go, and no failure.
func (m *member) stop() error {
	m.cancel()
	grace := m.part.Grace
	if grace <= 0 {
		grace = DefaultGrace
	}
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case <-m.done:
	case <-late.C:
		return &LateError{Part: m.part.Name, Grace: grace}
	}
	if m.err == nil || errors.Is(m.err, context.Canceled) {
		return nil
	}
	return fmt.Errorf("%s: %w", m.part.Name, m.err)
}

// contains tells whether the cause is reported already.
func contains(errs []error, err error) bool {
	for _, e := range errs {
		if e.Error() == err.Error() {
			return true
		}
	}
	return false
}
