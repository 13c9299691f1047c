// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"fmt"
	"testing"

	"github.com/isthmus-mesh/isthmus/test/netlab"
	"github.com/isthmus-mesh/isthmus/test/netlab/probe"
)

func errorf(format string, args ...any) error { return fmt.Errorf(format, args...) }

// TestTrafficOutlivesTheControlPlane kills isthmusd under load and starts it anew.
func TestTrafficOutlivesTheControlPlane(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	a := lab.Pod("a")
	lab.Pod("b")
	a.Ask("http://b/").WantOK()

	stop, flood := a.Ask("http://b/").Load(), a.Flood("http://b/")
	lab.KillControlPlane()
	a.Ask("http://b/").WantOK()
	lab.RestartControlPlane()
	lab.Pod("c") // what changes afterwards arrives
	a.Ask("http://c/").WantOK()
	wantAllOK(t, stop())
	if err := flood().Err(); err != nil {
		t.Error(err)
	}
}

// TestARollingRestartLosesNothing replaces a pod under load.
func TestARollingRestartLosesNothing(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	a := lab.Pod("a")
	old := lab.Add(netlab.PodSpec{Name: "b-1", App: "b"})
	a.Ask("http://b/").WantOK()

	stop := a.Ask("http://b/").Load()
	lab.Add(netlab.PodSpec{Name: "b-2", App: "b"})
	a.Ask("http://b/").Until(func(r probe.Result) error {
		if r.By() != "b-2" {
			return errorf("answered by %s", r.By())
		}
		return nil
	})
	old.Stop()
	wantAllOK(t, stop())
}

// wantAllOK checks that not one request failed.
func wantAllOK(t *testing.T, rs []probe.Result) {
	t.Helper()
	failed, first := 0, ""
	if len(rs) == 0 {
		t.Error("no request was made")
	}
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
