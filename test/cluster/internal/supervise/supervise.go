// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package supervise keeps programs running: one log file each, started again a
// second after they end unless they are held, and a file that says how they are.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/control"
)

const restartDelay = time.Second

// Program is one program to keep running.
type Program struct {
	Name string
	Path string
	Args []string
}

// Group runs programs in one directory.
type Group struct {
	dir, logs string

	mu    sync.Mutex
	state State
	all   map[string]*runner
	wait  sync.WaitGroup
}

// runner is one program's. The group's lock is for its fields.
type runner struct {
	status  Status
	process *os.Process   // while it runs
	ended   chan struct{} // closed when that process has
	wake    chan struct{} // says that status.Held has changed, or should be thought of as if
}

// NewGroup runs programs in dir, writes their logs to logs, and its state to dir.
func NewGroup(dir, logs string) *Group {
	return &Group{dir: dir, logs: logs, all: map[string]*runner{}}
}

// Start keeps the program running until the context ends.
func (g *Group) Start(ctx context.Context, p Program) {
	r := &runner{status: Status{Name: p.Name}, wake: make(chan struct{}, 1)}
	g.mu.Lock()
	g.all[p.Name] = r
	g.mu.Unlock()
	g.wait.Go(func() {
		for ctx.Err() == nil {
			err := g.once(ctx, p, r)
			g.change(func() {
				r.status.PID, r.status.Last, r.status.Restarts = 0, fmt.Sprint(err), r.status.Restarts+1
				if r.process != nil {
					r.process = nil
					close(r.ended)
				}
			})
			g.pause(ctx, r)
		}
	})
}

// pause returns when the program is to start again: after a second, when it is
// told to, but not while it is held.
func (g *Group) pause(ctx context.Context, r *runner) {
	delay := time.After(restartDelay)
	for {
		select {
		case <-ctx.Done():
			return
		case <-delay:
		case <-r.wake:
		}
		g.mu.Lock()
		held := r.status.Held
		g.mu.Unlock()
		if !held {
			return
		}
	}
}

// Wait returns when all programs have ended, which they do with their contexts.
func (g *Group) Wait() { g.wait.Wait() }

func (g *Group) once(ctx context.Context, p Program, r *runner) error {
	log, err := os.OpenFile(filepath.Join(g.logs, p.Name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	c := exec.CommandContext(ctx, p.Path, p.Args...)
	c.Dir, c.Stdout, c.Stderr = g.dir, log, log
	if err := c.Start(); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	g.change(func() {
		r.process, r.ended = c.Process, make(chan struct{})
		r.status.PID, r.status.Since = c.Process.Pid, time.Now()
		if r.status.Held { // since a moment ago
			_ = c.Process.Kill()
		}
	})
	if err := c.Wait(); err != nil {
		return fmt.Errorf("run: %w", err)
	}
	return nil
}

// Do does what a command asks to one of the programs. One that is killed or to be
// held has ended when Do returns; other signals may be meant to be survived.
func (g *Group) Do(q control.Request) error {
	ended, err := g.do(q)
	if ended != nil && (q.Hold || q.Signal == syscall.SIGKILL) {
		<-ended
	}
	return err
}

func (g *Group) do(q control.Request) (ended <-chan struct{}, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer g.save()
	r, ok := g.all[q.Name]
	if !ok {
		return nil, fmt.Errorf("there is no program %s here", q.Name)
	}
	r.status.Held = q.Hold
	if r.process == nil {
		if q.Start {
			select {
			case r.wake <- struct{}{}:
			default: // has been told already
			}
		}
		if q.Start || q.Hold {
			return nil, nil
		}
		return nil, fmt.Errorf("%s does not run", q.Name)
	}
	if q.Start {
		return nil, nil
	}
	if err := r.process.Signal(q.Signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return nil, fmt.Errorf("signal %s: %w", q.Name, err)
	}
	return r.ended, nil
}
