// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/internal/topology"
	"github.com/isthmus-mesh/isthmus/test/netlab"
)

// streamsTo has an entry for a host outside that is called in every way that keeps
// a connection.
const streamsTo = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api}
spec:
  hosts: [api.example.com]
  location: MESH_EXTERNAL
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 50051, name: grpc, protocol: GRPC}, {number: 9000, name: tcp, protocol: TCP}]
`

// TestStreamsOutliveWhatChanges keeps streams within the mesh and to a host outside.
// After each change, and when what it made Envoy drain is gone, they must go on, on
// the connections that they began with.
func TestStreamsOutliveWhatChanges(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t, netlab.WithEgressGateway, setTopology(topology.IngressOnly))
	a, gw := lab.Pod("a"), lab.EgressGateway()
	lab.Add(netlab.PodSpec{Name: "b-1", App: "b"})
	lab.Host("api.example.com")
	lab.Apply(streamsTo)

	streams := map[string]*netlab.Line{}
	began := map[string]string{}
	for _, url := range []string{
		"tcp://b:9000", "grpc://b:50051", "ws://b/ws",
		"tcp://api.example.com:9000", "grpc://api.example.com:50051", "ws://api.example.com/ws",
	} {
		a.Ask(url).WantOK()
		streams[url] = a.Hold(url)
		began[url] = streams[url].First()
	}
	move := func(to topology.Kind, caller *netlab.Pod) func() {
		return func() {
			lab.Configure(setTopology(to))
			a.Ask("http://api.example.com/").Until(caller.CheckCalled)
		}
	}
	var second *netlab.Pod
	for _, step := range []struct {
		name string
		take func()
	}{
		{"a route", func() {
			lab.Apply(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b}
spec:
  hosts: [b]
  http:
  - match: [{uri: {exact: /closed}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: b}}]
  - route: [{destination: {host: b}}]
`)
			a.Ask("http://b/closed").Want(418)
		}},
		{"an endpoint that comes", func() {
			second = lab.Add(netlab.PodSpec{Name: "b-2", App: "b"})
			a.Ask("http://b/").WantAmong("b-1", "b-2")
		}},
		{"an endpoint that goes", func() {
			second.Stop()
			a.Ask("http://b/").WantAmong("b-1")
		}},
		{"a new isthmusd", func() {
			lab.KillControlPlane()
			lab.RestartControlPlane()
			lab.Pod("c")
			a.Ask("http://c/").WantOK()
		}},
		{"SidecarEgress", move(topology.SidecarEgress, a)},
		{"EgressGateway", move(topology.EgressGateway, gw)},
		{"IngressOnly", move(topology.IngressOnly, a)},
	} {
		step.take()
		a.WantDrained()
		for url, s := range streams {
			got, err := s.Echo("later")
			if err != nil {
				t.Fatalf("%s did not outlive %s: %v", url, step.name, err)
			}
			if strings.TrimSuffix(got, "later") != strings.TrimSuffix(began[url], "first") {
				t.Errorf("%s has another connection after %s: %s, not %s", url, step.name, got, began[url])
			}
		}
	}
}
