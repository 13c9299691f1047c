// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"fmt"
	"strings"
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

// uncalled are services that nobody calls.
func uncalled(n int) string {
	var docs []string
	for i := range n {
		var endpoints []string
		for e := range 10 {
			endpoints = append(endpoints, fmt.Sprintf("{address: 10.20.%d.%d, labels: {app: s%d}}", i/25, i%25*10+e, i))
		}
		docs = append(docs, fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: s%d}
spec:
  hosts: [s%d.mesh.test]
  addresses: [10.97.%d.%d]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [%s]
`, i, i, i/250, i%250+1, strings.Join(endpoints, ", ")))
	}
	return strings.Join(docs, "---\n")
}

// TestASidecarOnDemandStaysSmall: with a thousand services its memory is within a
// fifth of that with ten.
func TestASidecarOnDemandStaysSmall(t *testing.T) {
	t.Parallel()
	memory := map[string]int64{}
	for _, n := range []int{10, 1000} {
		lab := netlab.New(t)
		b := lab.Pod("b")
		lab.Apply(uncalled(n))
		b.WantConfig(fmt.Sprintf("vhds.80/s%d.mesh.test", n-1))
		for mode, env := range map[string]map[string]string{"Full": {}, "OnDemand": asking()} {
			p := lab.Add(netlab.PodSpec{Name: "a-" + strings.ToLower(mode), Env: env})
			lab.Ready() // Nobody looks at its configuration, for that takes memory too.
			for _, url := range []string{"http://b/", "http://b:8080/", "tcp://b:9000", "grpc://b:50051", "https://b/"} {
				if r := p.Ask(url).Start()(); !r.OK {
					t.Errorf("%s, %d services: %s: %d %s", mode, n, url, r.Status, r.Error)
				}
			}
			kib := p.ProxyMemory()
			memory[fmt.Sprint(mode, n)] = kib
			t.Logf("%s, %d services: Envoy has %.1f MiB", mode, n, float64(kib)/1024)
		}
	}
	if small, large := memory["OnDemand10"], memory["OnDemand1000"]; large > small*12/10 {
		t.Errorf("a thousand services: %d KiB, ten: %d KiB", large, small)
	}
}
