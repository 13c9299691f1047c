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
	failed := 0
	for _, r := range <-load {
		if !r.OK {
			failed++
		}
	}
	if failed > 0 {
		t.Errorf("%d of 200 requests failed", failed)
	}

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
	failed := map[string]int{}
	for _, r := range <-load {
		if !r.OK {
			failed[fmt.Sprint(r.Status, r.Error)]++
		}
	}
	if len(failed) > 0 {
		t.Errorf("requests failed: %v", failed)
	}
}
