// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"fmt"
	"testing"

	"github.com/isthmus-mesh/isthmus/test/netlab"
	"github.com/isthmus-mesh/isthmus/test/netlab/probe"
)

// versions adds two versions of b and the subsets that tell them apart.
func versions(lab *netlab.Lab) {
	for _, v := range []string{"v1", "v2"} {
		lab.Add(netlab.PodSpec{Name: "b-" + v, App: "b", Labels: map[string]string{"version": v}})
	}
	lab.Apply(`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b}
spec:
  host: b
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
`)
}

func TestVirtualServiceSplitsByWeight(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	a := lab.Pod("a")
	versions(lab)
	const rule = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b}
spec:
  hosts: [b]
  http:
  - route:
    - {destination: {host: b, subset: v1}, weight: %d}
    - {destination: {host: b, subset: v2}, weight: %d}
`
	lab.Apply(fmt.Sprintf(rule, 0, 100))
	settled(t, a, func(n map[string]int) bool { return n["b-v2"] == 20 })
	lab.Apply(fmt.Sprintf(rule, 75, 25))
	settled(t, a, func(n map[string]int) bool { return n["b-v1"] > 0 })
	got := a.Ask("http://b/").Names(200)
	if v1 := got["b-v1"]; v1 < 110 || v1 > 190 || got["b-v2"] != 200-v1 {
		t.Errorf("of 200 requests: %v, want about 150 of b-v1 and the rest of b-v2", got)
	}
}

// settled asks until the answers of 20 requests are as wanted.
func settled(t *testing.T, p *netlab.Pod, want func(map[string]int) bool) {
	t.Helper()
	p.Ask("http://b/").Until(func(probe.Result) error {
		if n := p.Ask("http://b/").Names(20); !want(n) {
			return fmt.Errorf("answers by %v", n)
		}
		return nil
	})
}

func TestVirtualServiceMatchesRewritesAndRedirects(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	a := lab.Pod("a")
	versions(lab)
	lab.Apply(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b}
spec:
  hosts: [b]
  http:
  - match: [{headers: {x-version: {exact: "2"}}}]
    route: [{destination: {host: b, subset: v2}}]
  - match: [{uri: {prefix: /old}}]
    rewrite: {uri: /new}
    route: [{destination: {host: b, subset: v1}, headers: {response: {set: {x-seen: "yes"}}}}]
  - match: [{uri: {exact: /gone}}]
    redirect: {uri: /elsewhere}
  - match: [{uri: {exact: /teapot}}]
    directResponse: {status: 418}
  - route: [{destination: {host: b, subset: v1}}]
`)
	a.Ask("http://b/teapot").Want(418)
	a.Ask("http://b/gone").Want(301)
	if r := a.Ask("http://b/").Header("x-version", "2").WantOK(); r.By() != "b-v2" {
		t.Errorf("by header: %v", r.Body)
	}
	if r := a.Ask("http://b/old/page").WantOK(); r.Field("path") != "/new/page" {
		t.Errorf("rewritten: %v", r.Body)
	}
	if r := a.Ask("http://b/").WantOK(); r.By() != "b-v1" {
		t.Errorf("default: %v", r.Body)
	}
}

func TestTimeoutAndFault(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	a := lab.Pod("a")
	lab.Pod("b")
	lab.Apply(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b}
spec:
  hosts: [b]
  http:
  - match: [{uri: {prefix: /fault}}]
    fault: {abort: {httpStatus: 599, percentage: {value: 100}}}
    route: [{destination: {host: b}}]
  - timeout: 0.2s
    route: [{destination: {host: b}}]
`)
	a.Ask("http://b/fault").Want(599)
	r := a.Ask("http://b/?delay=2s").Want(504)
	if r.Millis > 1500 {
		t.Errorf("answered after %.0f ms, want about 200", r.Millis)
	}
	a.Ask("http://b/").WantOK()
}

// TestRetriesHideAFailingPod has one good and one dead endpoint.
func TestRetriesHideAFailingPod(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	a := lab.Pod("a")
	lab.Add(netlab.PodSpec{Name: "b-good", App: "b"})
	bad := lab.Add(netlab.PodSpec{Name: "b-bad", App: "b"})
	a.Ask("http://b/").Until(func(probe.Result) error {
		if n := a.Ask("http://b/").Names(20); n["b-good"] == 0 || n["b-bad"] == 0 {
			return fmt.Errorf("answers by %v, want both", n)
		}
		return nil
	})
	bad.Crash()
	if n := a.Ask("http://b/").Names(50); n["b-good"] != 50 {
		t.Errorf("after a crash: %v, want every request answered by b-good", n)
	}
}
