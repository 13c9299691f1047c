// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/internal/topology"
	"github.com/isthmus-mesh/isthmus/test/netlab"
	"github.com/isthmus-mesh/isthmus/test/netlab/probe"
)

// from checks that the server outside was called by this pod.
func from(p *netlab.Pod) func(probe.Result) error {
	return func(r probe.Result) error {
		if !r.OK {
			return errorf("status %d %s", r.Status, r.Error)
		}
		if at := r.Caller(); !strings.HasPrefix(at, p.IP.String()+":") {
			return errorf("called from %s, want %s at %s", at, p.Name, p.IP)
		}
		return nil
	}
}

// ranges registers a range of addresses on one port.
const ranges = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ranges}
spec:
  hosts: [databases.internal]
  addresses: [192.0.2.0/31]
  location: MESH_EXTERNAL
  resolution: NONE
  ports: [{number: 9000, name: tcp, protocol: TCP}]
`

func TestRangesOfAddressesInEveryTopology(t *testing.T) {
	t.Parallel()
	for name, with := range topologies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := netlab.New(t, with, netlab.WithRegistryOnly)
			a := lab.Pod("a")
			caller := leaving(lab, name, a)
			inside, outside := lab.Host("one.example.com"), lab.Host("two.example.com")
			lab.Apply(ranges)
			r := a.Ask("tcp://" + inside.IP.String() + ":9000").Until(from(caller))
			if r.By() != "one.example.com" {
				t.Errorf("%s answered", r.By())
			}
			a.Ask("tcp://" + outside.IP.String() + ":9000").WantRefused()
			a.Ask("tcp://" + inside.IP.String() + ":8080").WantRefused()
		})
	}
}

func TestALongConnectionToARangeOutlivesItsTopology(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t, netlab.WithEgressGateway)
	gw, a := lab.EgressGateway(), lab.Pod("a")
	inside := lab.Host("one.example.com")
	lab.Apply(ranges)
	a.Ask("tcp://" + inside.IP.String() + ":9000").Until(from(gw))
	line := a.Hold("tcp://" + inside.IP.String() + ":9000")
	lab.Configure(setTopology(topology.SidecarEgress))
	a.Ask("tcp://" + inside.IP.String() + ":9000").Until(from(a))
	if _, err := line.Echo("still there"); err != nil {
		t.Errorf("a long connection did not outlive the move: %v", err)
	}
}

// TestTunnelsShareAConnection: three connections of an application are three streams
// on one mutual TLS connection to the gateway.
func TestTunnelsShareAConnection(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t, netlab.WithEgressGateway)
	gw, a := lab.EgressGateway(), lab.Pod("a")
	inside := lab.Host("one.example.com")
	lab.Apply(ranges)
	at := "tcp://" + inside.IP.String() + ":9000"
	a.Ask(at).Until(from(gw))
	lines := []*netlab.Line{a.Hold(at), a.Hold(at), a.Hold(at)}
	for i, l := range lines {
		if _, err := l.Echo("all at once"); err != nil {
			t.Errorf("line %d: %v", i, err)
		}
	}
	if inner := gw.Stat("^listener.*inner.*databases.internal.*downstream_cx_active$"); inner != 3 {
		t.Errorf("the gateway carries %d connections to the range, want 3", inner)
	}
	if outer := gw.Stat("^http.*databases.internal.*downstream_cx_active$"); outer != 1 {
		t.Errorf("%d connections reach the gateway, want 1 for all", outer)
	}
}

func TestTheGatewayOpensOnlyTheRange(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t, netlab.WithEgressGateway, netlab.WithRegistryOnly)
	gw, a := lab.EgressGateway(), lab.Pod("a")
	inside, outside := lab.Host("one.example.com"), lab.Host("two.example.com")
	lab.Apply(ranges)
	lab.Apply(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wide}
spec:
  hosts: [wide.internal]
  addresses: [192.0.2.0/24]
  location: MESH_EXTERNAL
  resolution: NONE
  ports: [{number: 9000, name: tcp, protocol: TCP}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: wide}
spec: {hosts: [wide.internal], tcp: [{route: [{destination: {host: databases.internal, port: {number: 9000}}}]}]}
`)
	a.Ask("tcp://" + inside.IP.String() + ":9000").Until(from(gw))
	a.Ask("tcp://" + outside.IP.String() + ":9000").WantRefused()
	gw.WantLog("BlackHoleCluster", outside.IP.String()+":9000")
	// Who may not use the range is told so by HTTP, before anything is opened.
	stranger := lab.Add(netlab.PodSpec{Name: "c", Namespace: "other"})
	lab.Apply(forged(gw.IP.String(), 9000, "HTTP2", "databases.internal"))
	stranger.Ask("http2://forged-9000.internal/").Via("192.0.2.80:9000").Want(403)
	gw.WantLog("rbac_access_denied", "spiffe://cluster.local/ns/other/sa/c")
	if log := outside.AppLog(); strings.Contains(log, "tcp") {
		t.Errorf("an address of another entry was called:\n%s", log)
	}
}
