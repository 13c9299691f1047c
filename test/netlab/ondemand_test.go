// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"fmt"
	"testing"

	"github.com/isthmus-mesh/isthmus/test/netlab"
)

// asking makes a sidecar ask for its clusters.
func asking() map[string]string {
	return map[string]string{"ISTIO_META_ISTHMUS_DISCOVERY": "OnDemand"}
}

func host(name string) string { return name + ".default.svc.cluster.local" }

// TestTheFirstRequestSucceeds: each of these is the first for a cluster that the
// proxy does not have, and is made once.
func TestTheFirstRequestSucceeds(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	a := lab.Add(netlab.PodSpec{Name: "a", Env: asking()})
	lab.Pod("b")
	first := func(url string) {
		t.Helper()
		r := a.Ask(url).Times(1)[0]
		if !r.OK {
			t.Errorf("the first request for %s: %d %s", url, r.Status, r.Error)
		}
		t.Logf("the first request for %s took %.1f ms", url, r.Millis)
	}
	a.WantConfig("vhds.80/" + host("b"))
	for _, url := range []string{
		"http://b/", "http2://b:8080/", "grpc://b:50051", "tcp://b:9000", "https://b/", "mysql://b:3306",
		"http://b:7000/", "tcp://b:7001", "grpc://b:7002", "https://b:7003/",
	} {
		first(url)
	}
	// A service that comes while others are in use.
	lab.Pod("late")
	a.WantConfig("vhds.80/" + host("late"))
	first("ws://late/ws")
	first("tcp://late:9000")

	// The next pod of the workload has what the first one asked for.
	next := lab.Add(netlab.PodSpec{Name: "a-2", App: "a", Env: asking()})
	other := lab.Add(netlab.PodSpec{Name: "c", Env: asking()})
	lab.Ready()
	for pod, want := range map[*netlab.Pod]bool{next: true, other: false} {
		if has := pod.HasCluster("outbound|9000||" + host("late")); has != want {
			t.Errorf("%s has the cluster before it asks: %t, want %t", pod.Name, has, want)
		}
	}
}

// TestOnDemandWithoutAControlPlane: what is in use goes on, what is not fails until
// there is one again.
func TestOnDemandWithoutAControlPlane(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	a := lab.Add(netlab.PodSpec{Name: "a", Env: asking()})
	lab.Pod("b")
	a.Ask("http://b/").WantOK()
	load := a.Ask("http://b/").Load()
	lab.KillControlPlane()
	a.Ask("http://b:8080/").Want(503)
	a.Ask("tcp://b:9000").WantRefused()
	lab.RestartControlPlane()
	a.Ask("http://b:8080/").WantOK()
	a.Ask("tcp://b:9000").WantOK()
	a.Ask("grpc://b:50051").WantOK()
	for _, r := range load() {
		if !r.OK {
			t.Fatalf("a service in use: %d %s", r.Status, r.Error)
		}
	}
}

// TestPodsOfBothModesTakeEachOthersPlace rolls a workload from one mode to the
// other and back while it calls and is called, as after a change of
// spec.proxy.discovery.
func TestPodsOfBothModesTakeEachOthersPlace(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t, netlab.WithStrict)
	caller := lab.Pod("caller")
	lab.Pod("b")
	pods := []*netlab.Pod{lab.Add(netlab.PodSpec{Name: "a-0", App: "a"})}
	for i, env := range []map[string]string{asking(), {}} {
		next := lab.Add(netlab.PodSpec{Name: fmt.Sprint("a-", i+1), App: "a", Env: env})
		next.Ask("http://b/").WantOK()
		caller.Ask("http://a/").WantAmong(pods[i].Name, next.Name)
		load, stop := next.Ask("http://b/").Load(), caller.Flood("http://a/")
		pods[i].Stop()
		caller.Ask("http://a/").WantAmong(next.Name)
		for _, r := range load() {
			if !r.OK {
				t.Fatalf("%s calls: %d %s", next.Name, r.Status, r.Error)
			}
		}
		if err := stop().Err(); err != nil {
			t.Error(err)
		}
		pods = append(pods, next)
	}
}
