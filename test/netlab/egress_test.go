// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"fmt"
	"strings"
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

func TestRegisteredHostsInEveryTopology(t *testing.T) {
	t.Parallel()
	for name, with := range topologies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := netlab.New(t, with)
			a := lab.Pod("a")
			caller := a
			if name == "EgressGateway" {
				caller = lab.EgressGateway()
			}
			lab.Host("api.example.com")
			lab.Host("*.wild.example.org")
			lab.Apply(entries)

			r := a.HTTP("http://api.example.com/x").Until(from(caller))
			if r.Field("host") != "api.example.com" {
				t.Errorf("the host was called %q", r.Field("host"))
			}
			r = a.HTTP("https://api.example.com/x", "--cacert", lab.OutsideCA()).Until(from(caller))
			if r.Field("sni") != "api.example.com" {
				t.Errorf("the host was greeted as %q", r.Field("sni"))
			}
			a.HTTP("http://one.wild.example.org/").Until(from(caller))
			a.HTTP("https://two.wild.example.org/", "--cacert", lab.OutsideCA()).Until(from(caller))
			a.TCP("api.example.com:9000").Until(lineFrom(caller))
		})
	}
}

// from checks that the server outside was called by this pod.
func from(p *netlab.Pod) func(netlab.Result) error {
	return func(r netlab.Result) error {
		if !r.OK {
			return errorf("status %d %s", r.Status, r.Error)
		}
		if at := r.Field("remote"); !strings.HasPrefix(at, p.IP.String()+":") {
			return errorf("called from %s, want %s at %s", at, p.Name, p.IP)
		}
		return nil
	}
}

// lineFrom is from for a line of TCP.
func lineFrom(p *netlab.Pod) func(netlab.Result) error {
	return func(r netlab.Result) error {
		if line := fmt.Sprint(r.Body); !strings.Contains(line, "remote="+p.IP.String()+":") {
			return errorf("%v %s: answer %q, want it called from %s", r.OK, r.Error, line, p.IP)
		}
		return nil
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
			a.HTTP("http://other.example.net/").WantOK()
			a.HTTP("https://other.example.net/", "--cacert", lab.OutsideCA()).WantOK()
			lab.Configure(netlab.WithRegistryOnly)
			a.HTTP("http://other.example.net/").Want(502)
			a.HTTP("http://other.example.net/").WantRefused()
			a.HTTP("https://other.example.net/", "--cacert", lab.OutsideCA()).WantRefused()
			a.TCP("other.example.net:9000").WantRefused()
		})
	}
}
