// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"fmt"
	"testing"

	"github.com/isthmus-mesh/isthmus/test/netlab"
)

func errorf(format string, args ...any) error { return fmt.Errorf(format, args...) }

// TestTrafficOutlivesTheControlPlane kills isthmusd under load and starts it anew.
func TestTrafficOutlivesTheControlPlane(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	a := lab.Pod("a")
	lab.Pod("b")
	a.HTTP("http://b/").WantOK()

	load := make(chan []netlab.Result, 1)
	go func() { load <- a.HTTP("http://b/", "--interval", "10ms").Times(200) }()
	lab.KillControlPlane()
	a.HTTP("http://b/").WantOK()
	lab.RestartControlPlane()
	wantAllOK(t, <-load)

	// What changes afterwards arrives.
	lab.Pod("c")
	a.HTTP("http://c/").WantOK()
}

// TestARollingRestartLosesNothing replaces a pod under load.
func TestARollingRestartLosesNothing(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	a := lab.Pod("a")
	old := lab.Add(netlab.PodSpec{Name: "b-1", App: "b"})
	a.HTTP("http://b/").WantOK()

	load := make(chan []netlab.Result, 1)
	go func() { load <- a.HTTP("http://b/", "--interval", "10ms").Times(300) }()
	lab.Add(netlab.PodSpec{Name: "b-2", App: "b"})
	a.HTTP("http://b/").Until(func(r netlab.Result) error {
		if r.Field("name") != "b-2" {
			return errorf("answered by %s", r.Field("name"))
		}
		return nil
	})
	old.Stop()
	wantAllOK(t, <-load)
}

// wantAllOK checks that not one request failed.
func wantAllOK(t *testing.T, rs []netlab.Result) {
	t.Helper()
	failed, first := 0, ""
	for i, r := range rs {
		if r.OK {
			continue
		}
		if failed++; failed == 1 {
			first = fmt.Sprintf("number %d: %d %s", i, r.Status, r.Error)
		}
	}
	if failed > 0 {
		t.Errorf("%d of %d requests failed, first %s", failed, len(rs), first)
	}
}
