// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"time"
)

// Status is how a program is, for people.
type Status struct {
	Name     string    `json:"name"`
	PID      int       `json:"pid"` // in the cell
	Since    time.Time `json:"since"`
	Held     bool      `json:"held,omitempty"` // not started again until told to
	Restarts int       `json:"restarts"`
	Last     string    `json:"last,omitempty"` // how it ended last
}

// State is what the state file holds.
type State struct {
	Ready    bool     `json:"ready"`
	Failure  string   `json:"failure,omitempty"`
	Programs []Status `json:"programs"`
}

const stateFile = "state.json"

// Ready records that everything is up, or why it never will be.
func (g *Group) Ready(err error) {
	g.change(func() {
		g.state.Ready = err == nil
		if err != nil {
			g.state.Failure = err.Error()
		}
	})
}

func (g *Group) change(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
	g.save()
}

// save is called with the lock held. The file is for people: if it cannot be
// written, the cluster works all the same.
func (g *Group) save() {
	s := g.state
	for _, r := range g.all {
		s.Programs = append(s.Programs, r.status)
	}
	sort.Slice(s.Programs, func(i, j int) bool { return s.Programs[i].Name < s.Programs[j].Name })
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return
	}
	tmp := filepath.Join(g.dir, "."+stateFile)
	if os.WriteFile(tmp, b, 0o644) == nil {
		_ = os.Rename(tmp, filepath.Join(g.dir, stateFile))
	}
}

// Forget removes the state of a group that ran in dir, before another one does.
func Forget(dir string) error {
	if err := os.Remove(filepath.Join(dir, stateFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget state: %w", err)
	}
	return nil
}

// Read reads the state of the group that runs, or ran, in dir.
func Read(dir string) (State, error) {
	var s State
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return s, fmt.Errorf("read state: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("parse state: %w", err)
	}
	return s, nil
}
