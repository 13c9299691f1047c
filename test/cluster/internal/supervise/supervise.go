// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package supervise keeps programs running: one log file each, started again a
// second after they end, and a file that says how they are.
package supervise

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/wiring"
)

const restartDelay = time.Second

// Program is one program to keep running.
type Program struct {
	Name  string
	Path  string
	Args  []string
	Netns string // path of the network namespace to run in; empty is the caller's
}

// Status is how a program is, for people.
type Status struct {
	Name     string    `json:"name"`
	PID      int       `json:"pid"` // in the cell
	Since    time.Time `json:"since"`
	Restarts int       `json:"restarts"`
	Last     string    `json:"last,omitempty"` // how it ended last
}

// State is what the state file holds.
type State struct {
	Ready    bool     `json:"ready"`
	Failure  string   `json:"failure,omitempty"`
	Programs []Status `json:"programs"`
}

// Group runs programs in one directory.
type Group struct {
	dir  string
	logs string

	mu    sync.Mutex
	state map[string]*Status
	head  State
	wait  sync.WaitGroup
}

// NewGroup runs programs in dir and writes logs and state below it.
func NewGroup(dir string) *Group {
	return &Group{dir: dir, logs: filepath.Join(dir, "logs"), state: map[string]*Status{}}
}

// Start keeps the program running until the context ends.
func (g *Group) Start(ctx context.Context, p Program) {
	g.mu.Lock()
	g.state[p.Name] = &Status{Name: p.Name}
	g.mu.Unlock()
	g.wait.Go(func() {
		for ctx.Err() == nil {
			g.note(p.Name, func(s *Status) { s.Since = time.Now() })
			err := g.once(ctx, p)
			g.note(p.Name, func(s *Status) { s.PID, s.Last, s.Restarts = 0, fmt.Sprint(err), s.Restarts+1 })
			select {
			case <-ctx.Done():
			case <-time.After(restartDelay):
			}
		}
	})
}

// Wait returns when all programs have ended, which they do with their contexts.
func (g *Group) Wait() { g.wait.Wait() }

func (g *Group) once(ctx context.Context, p Program) error {
	log, err := os.OpenFile(filepath.Join(g.logs, p.Name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	c := exec.CommandContext(ctx, p.Path, p.Args...)
	c.Dir, c.Stdout, c.Stderr = g.dir, log, log
	start := c.Start
	if p.Netns != "" {
		start = func() error { return wiring.Within(p.Netns, c.Start) }
	}
	if err := start(); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	g.note(p.Name, func(s *Status) { s.PID = c.Process.Pid })
	if err := c.Wait(); err != nil {
		return fmt.Errorf("run: %w", err)
	}
	return nil
}

func (g *Group) note(name string, change func(*Status)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change(g.state[name])
	g.save()
}

// Ready records that everything is up, or why it never will be.
func (g *Group) Ready(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.head.Ready = err == nil
	if err != nil {
		g.head.Failure = err.Error()
	}
	g.save()
}

// save is called with the lock held. The file is for people: if it cannot be
// written, the cluster works all the same.
func (g *Group) save() {
	s := g.head
	for _, p := range g.state {
		s.Programs = append(s.Programs, *p)
	}
	sort.Slice(s.Programs, func(i, j int) bool { return s.Programs[i].Name < s.Programs[j].Name })
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return
	}
	tmp := filepath.Join(g.dir, ".state.json")
	if os.WriteFile(tmp, b, 0o644) == nil {
		_ = os.Rename(tmp, filepath.Join(g.dir, "state.json"))
	}
}

// Read reads the state of the group that runs, or ran, in dir.
func Read(dir string) (State, error) {
	var s State
	b, err := os.ReadFile(filepath.Join(dir, "state.json"))
	if err != nil {
		return s, fmt.Errorf("read state: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("parse state: %w", err)
	}
	return s, nil
}
