// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"
)

func TestArgs(t *testing.T) {
	t.Parallel()
	got := strings.Join(Command{Bootstrap: "b.json", Concurrency: 2, ComponentLogLevel: "misc:error"}.Args(), " ")
	want := "-c b.json --disable-hot-restart --drain-time-s 45 --drain-strategy immediate --file-flush-interval-msec 100" +
		" --allow-unknown-static-fields --skip-deprecated-logs -l warning --component-log-level misc:error --concurrency 2"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if args := (Command{DrainTime: 3 * time.Second}).Args(); !slices.Contains(args, "3") {
		t.Errorf("the drain time is not among %q", args)
	}
}

func TestProcessTellsHowItEnded(t *testing.T) {
	t.Parallel()
	// Real programs would stumble over Envoy's arguments, some before the signal comes.
	patient := filepath.Join(t.TempDir(), "patient")
	if err := os.WriteFile(patient, []byte("#!/bin/sh\nexec /bin/sleep 60\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		path string
		stop bool
		want int
	}{
		"ended well":  {path: "/bin/true", want: 0},
		"ended badly": {path: "/bin/false", want: 1},
		"was stopped": {path: patient, stop: true, want: 143},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := Start(Command{Path: tt.path})
			if err != nil {
				t.Fatal(err)
			}
			if tt.stop {
				p.Stop(t.Context())
			}
			var exit *ExitError
			if err := p.Err(); !errors.As(err, &exit) || exit.Code != tt.want {
				t.Errorf("got %v, want code %d", err, tt.want)
			}
		})
	}
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.String())
		if r.URL.Path == "/drain_listeners" {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		_, _ = w.Write([]byte("listener.[::]_80.downstream_cx_active: 3\nhistogram: P0(1,2)\nserver.state: 0\n"))
	}))
	defer s.Close()
	a := NewAdmin(strings.TrimPrefix(s.URL, "http://"))
	got, err := a.Stats(t.Context(), "^a b$")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]int64{"listener.[::]_80.downstream_cx_active": 3, "server.state": 0}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if err := a.DrainListeners(t.Context()); err == nil {
		t.Error("an error status is no error")
	}
	if d := cmp.Diff([]string{"GET /stats?filter=%5Ea+b%24", "POST /drain_listeners?graceful"}, asked); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// connector counts down connections, one each time it is asked.
type connector struct{ left int64 }

func (c *connector) DrainListeners(context.Context) error { return nil }

func (c *connector) Stats(context.Context, string) (map[string]int64, error) {
	c.left = max(0, c.left-1)
	return map[string]int64{
		"listener.0.0.0.0_15006.downstream_cx_active":          c.left,
		"listener.0.0.0.0_15006.worker_0.downstream_cx_active": 7,
		"listener.admin.downstream_cx_active":                  7,
		"listener.stats.downstream_cx_active":                  7,
	}, nil
}

func TestDrain(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		min, max    time.Duration
		connections int64
		want        time.Duration
	}{
		"idle sidecar goes at once":        {max: 5 * time.Second, want: 0},
		"connections end in time":          {max: 5 * time.Second, connections: 4, want: 3 * pollEvery},
		"connections do not end":           {max: time.Second, connections: 1000, want: time.Second},
		"gateway stays for its minimum":    {min: 5 * time.Second, max: 5 * time.Second, want: 5 * time.Second},
		"minimum is more than the maximum": {min: 2 * time.Second, max: time.Second, connections: 1000, want: 2 * time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := clocktesting.NewFakeClock(time.Now())
			start := clock.Now()
			done := make(chan error, 1)
			go func() {
				done <- Drain{Min: tt.min, Max: tt.max, Clock: clock}.Run(t.Context(), &connector{left: tt.connections})
			}()
			for {
				select {
				case err := <-done:
					if err != nil {
						t.Fatal(err)
					}
					if got := clock.Since(start); got < tt.want || got > tt.want+pollEvery {
						t.Errorf("drained for %s, want %s", got, tt.want)
					}
					return
				case <-time.After(5 * time.Millisecond):
					clock.Step(pollEvery)
				}
			}
		})
	}
}
