// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestProgramsAreStartedAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "logs"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	g := NewGroup(dir)
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
