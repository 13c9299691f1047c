// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"fmt"
	"testing"

	"github.com/isthmus-mesh/isthmus/internal/topology"
	"github.com/isthmus-mesh/isthmus/test/netlab"
	"github.com/isthmus-mesh/isthmus/test/netlab/probe"
)

func TestServicesOfEveryKind(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t, netlab.WithStrict, netlab.WithRegistryOnly)
	a, b := lab.Pod("a"), lab.Pod("b")
	lab.Host("db.example.net")
	lab.Apply(`
apiVersion: v1
kind: Service
metadata: {name: headless}
spec:
  clusterIP: None
  selector: {app: b}
  ports: [{name: http, port: 80}, {name: tcp, port: 9000}]
---
apiVersion: v1
kind: Service
metadata: {name: other-port}
spec:
  selector: {app: b}
  ports: [{name: http, port: 81, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: declared}
spec:
  selector: {app: b}
  ports: [{name: whatever, appProtocol: http, port: 82, targetPort: 7000}]
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec:
  type: ExternalName
  externalName: db.example.net
  ports: [{name: http, port: 80}]
`)
	for name, call := range map[string]*netlab.Call{
		"headless, HTTP":          a.Ask("http://headless/headless"),
		"headless, TCP":           a.Ask("tcp://headless:9000"),
		"another target port":     a.Ask("http://other-port:81/other-port"),
		"protocol by appProtocol": a.Ask("http://declared:82/declared"),
	} {
		call.Named(name).WantOK()
	}
	for _, path := range []string{"/headless", "/other-port", "/declared"} {
		b.WantLog(path, spiffeA)
	}
	a.Ask("http://alias/").WantRefused() // nobody registered where it leads
	lab.Configure(func(c *topology.Config) { c.Outbound = topology.AllowAny })
	if r := a.Ask("http://alias/").WantOK(); r.By() != "db.example.net" {
		t.Errorf("ExternalName: %v", r.Body)
	}
}

func TestTLSIsOriginatedForAHost(t *testing.T) {
	t.Parallel()
	for name, with := range topologies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := netlab.New(t, with, netlab.WithRegistryOnly)
			a := lab.Pod("a")
			caller := leaving(lab, name, a)
			lab.Host("api.example.com")
			lab.Mount("etc/outside/ca.pem", lab.OutsideCA())
			lab.Apply(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api}
spec:
  hosts: [api.example.com]
  location: MESH_EXTERNAL
  resolution: DNS
  ports:
  - {number: 80, name: http, protocol: HTTP, targetPort: 443}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api}
spec:
  host: api.example.com
  trafficPolicy:
    tls: {mode: SIMPLE, caCertificates: /etc/outside/ca.pem}
`)
			r := a.Ask("http://api.example.com/x").Until(caller.CheckCalled)
			if r.Field("sni") != "api.example.com" {
				t.Errorf("the host was greeted as %q, want TLS with its name", r.Field("sni"))
			}
		})
	}
}

func TestConsistentHashStaysWithOnePod(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	a := lab.Pod("a")
	versions(lab)
	lab.Apply(`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b}
spec:
  host: b
  trafficPolicy:
    loadBalancer: {consistentHash: {httpHeaderName: x-user}}
`)
	a.Ask("http://b/").Until(func(probe.Result) error {
		if n := a.Ask("http://b/").Header("x-user", "one").Names(20); len(n) != 1 {
			return errorf("one user was answered by %v", n)
		}
		return nil
	})
	seen := map[string]bool{}
	for i := range 20 {
		for who := range a.Ask("http://b/").Header("x-user", fmt.Sprint(i)).Names(1) {
			seen[who] = true
		}
	}
	if len(seen) != 2 {
		t.Errorf("20 users were answered by %v, want both pods", seen)
	}
}

func TestSidecarNarrowsWhatAPodMayCall(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	a := lab.Pod("a")
	lab.Pod("b")
	lab.Pod("c")
	lab.Host("other.example.net")
	a.Ask("http://c/").WantOK()
	lab.Apply(`
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: a}
spec:
  workloadSelector: {labels: {app: a}}
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
  egress: [{hosts: ["./b.default.svc.cluster.local"]}]
`)
	a.Ask("http://c/").WantRefused()
	a.Ask("http://other.example.net/").WantRefused()
	a.Ask("http://b/").WantOK()
}

func TestMirroredRequests(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	a := lab.Pod("a")
	lab.Pod("b")
	shadow := lab.Pod("shadow")
	lab.Apply(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b}
spec:
  hosts: [b]
  http:
  - route: [{destination: {host: b}}]
    mirror: {host: shadow, port: {number: 80}}
`)
	a.Ask("http://b/mirrored").Until(func(r probe.Result) error {
		if r.By() != "b" {
			return errorf("answered by %q", r.By())
		}
		return shadow.HasLog("/mirrored", spiffeA)
	})
}
