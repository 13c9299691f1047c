// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/control"
)

func TestProgramsAreStartedAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "logs"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	g := NewGroup(dir, filepath.Join(dir, "logs"))
	g.Start(ctx, Program{Name: "missing", Path: filepath.Join(dir, "nothing")})
	// It ends the test at its second start.
	g.Start(ctx, Program{Name: "brief", Path: "/bin/sh", Args: []string{"-c", "echo started; test ! -e again || touch done; touch again; exit 3"}})
	for {
		if _, err := os.Stat(filepath.Join(dir, "done")); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatal("the program was not started again")
		case <-time.After(10 * time.Millisecond):
		}
	}
	cancel()
	g.Wait()
	g.Ready(nil)

	s, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Ready || len(s.Programs) != 2 {
		t.Fatalf("state %+v", s)
	}
	brief, missing := s.Programs[0], s.Programs[1]
	if brief.Restarts < 2 || brief.PID != 0 {
		t.Errorf("state of brief %+v", brief)
	}
	if !strings.Contains(missing.Last, "no such file") {
		t.Errorf("state of missing %+v", missing)
	}
	log, err := os.ReadFile(filepath.Join(dir, "logs", "brief.log"))
	if err != nil || strings.Count(string(log), "started\n") < 2 {
		t.Errorf("log %q and %v", log, err)
	}
}

func TestCommands(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	g := NewGroup(dir, dir)
	t.Cleanup(func() { cancel(); g.Wait() })
	g.Start(ctx, Program{Name: "sleeper", Path: "/bin/sleep", Args: []string{"infinity"}})
	sleeper := func(is func(Status) bool, what string) Status {
		t.Helper()
		var s State
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			var err error
			if s, err = Read(dir); err == nil && is(s.Programs[0]) {
				return s.Programs[0]
			}
		}
		t.Fatalf("the program is not %s: %+v", what, s)
		return Status{}
	}
	do := func(r control.Request) {
		t.Helper()
		r.Name = "sleeper"
		if err := g.Do(r); err != nil {
			t.Fatal(err)
		}
	}
	runs := func(s Status) bool { return s.PID != 0 }

	first := sleeper(runs, "running")
	do(control.Request{Signal: syscall.SIGKILL})
	second := sleeper(func(s Status) bool { return s.PID != 0 && s.PID != first.PID }, "running again")
	if second.Restarts != 1 || second.Last != "run: signal: killed" {
		t.Errorf("after it was killed it is %+v", second)
	}
	do(control.Request{Signal: syscall.SIGKILL, Hold: true})
	held := sleeper(func(s Status) bool { return s.PID == 0 }, "held")
	if !held.Held {
		t.Errorf("when it is held it is %+v", held)
	}
	if err := g.Do(control.Request{Name: "sleeper", Signal: syscall.SIGKILL}); err == nil {
		t.Error("what does not run was killed")
	}
	do(control.Request{Start: true})
	sleeper(runs, "started")
	do(control.Request{Signal: syscall.SIGKILL})
	do(control.Request{Signal: syscall.SIGKILL, Hold: true}) // whether it has started again or not
	sleeper(func(s Status) bool { return s.PID == 0 && s.Held }, "held")
	do(control.Request{Start: true})
	sleeper(func(s Status) bool { return s.PID != 0 && !s.Held }, "started")
	if err := g.Do(control.Request{Name: "other", Start: true}); err == nil {
		t.Error("a program that nobody knows was started")
	}
}
