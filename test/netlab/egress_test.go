// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/internal/topology"
	"github.com/isthmus-mesh/isthmus/test/netlab"
)

// entries registers two hosts outside, one of them by wildcard.
const entries = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api}
spec:
  hosts: [api.example.com]
  location: MESH_EXTERNAL
  resolution: DNS
  ports:
  - {number: 80, name: http, protocol: HTTP}
  - {number: 443, name: tls, protocol: TLS}
  - {number: 9000, name: tcp, protocol: TCP}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild}
spec:
  hosts: ["*.wild.example.org"]
  location: MESH_EXTERNAL
  resolution: NONE
  ports:
  - {number: 80, name: http, protocol: HTTP}
  - {number: 443, name: tls, protocol: TLS}
`

// topologies are the three, by what a registered host sees as its caller.
func topologies() map[string]func(*topology.Config) {
	return map[string]func(*topology.Config){
		"IngressOnly":   func(*topology.Config) {},
		"SidecarEgress": netlab.WithSidecarEgress,
		"EgressGateway": netlab.WithEgressGateway,
	}
}

// leaving is whom hosts outside see when the pod calls in the topology of this name:
// the egress gateway, which it adds, or the pod itself.
func leaving(lab *netlab.Lab, name string, pod *netlab.Pod) *netlab.Pod {
	if name == "EgressGateway" {
		return lab.EgressGateway()
	}
	return pod
}

func TestRegisteredHostsInEveryTopology(t *testing.T) {
	t.Parallel()
	for name, with := range topologies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := netlab.New(t, with)
			a := lab.Pod("a")
			caller := leaving(lab, name, a)
			lab.Host("api.example.com")
			lab.Host("*.wild.example.org")
			lab.Apply(entries)

			r := a.Ask("http://api.example.com/x").Until(caller.CheckCalled)
			if r.Field("host") != "api.example.com" {
				t.Errorf("the host was called %q", r.Field("host"))
			}
			r = a.Ask("https://api.example.com/x").Until(caller.CheckCalled)
			if r.Field("sni") != "api.example.com" {
				t.Errorf("the host was greeted as %q", r.Field("sni"))
			}
			a.Ask("http://one.wild.example.org/").Until(caller.CheckCalled)
			a.Ask("https://two.wild.example.org/").Until(caller.CheckCalled)
			a.Ask("tcp://api.example.com:9000").Until(caller.CheckCalled)
		})
	}
}

func TestHostsThatNobodyRegistered(t *testing.T) {
	t.Parallel()
	for name, with := range topologies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := netlab.New(t, with)
			a := lab.Pod("a")
			if name == "EgressGateway" {
				lab.EgressGateway()
			}
			lab.Host("other.example.net")
			lab.Apply(entries)
			a.Ask("http://other.example.net/").WantOK()
			a.Ask("https://other.example.net/").WantOK()
			lab.Configure(netlab.WithRegistryOnly)
			a.Ask("http://other.example.net/").Want(502)
			a.Ask("http://other.example.net/").WantRefused()
			a.Ask("https://other.example.net/").WantRefused()
			a.Ask("tcp://other.example.net:9000").WantRefused()
		})
	}
}
