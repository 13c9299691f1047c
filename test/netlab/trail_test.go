// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/test/netlab"
)

// Each request is held against what its proxies noted, whatever port the kernel
// made of the application's.
func TestARequestIsFoundByWhomeverItsPortIsShared(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	a := lab.Pod("a")
	lab.Pod("b")
	a.Ask("http://b/").WantOK()
	a.FewPorts()
	for _, at := range []string{"http://b/", "http://b:8080/", "tcp://b:9000"} {
		a.Ask(at).WantOK()
	}
}
