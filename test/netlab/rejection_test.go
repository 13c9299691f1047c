// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/test/netlab"
)

// broken is accepted by the API; an Envoy would refuse it.
const broken = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: broken}
spec:
  hosts: [c]
  http:
  - match: [{uri: {regex: "/(?!not-in-re2)"}}]
    route: [{destination: {host: c}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: broken}
spec:
  host: c
  trafficPolicy: {tls: {mode: SIMPLE, sni: "` + longName + `"}}
`

const longName = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" +
	"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example.com"

func TestBrokenConfigurationHurtsNobodyElse(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	a := lab.Pod("a")
	lab.Pod("b")
	lab.Pod("c")
	a.Ask("http://c/").WantOK()
	lab.Apply(broken)
	late := lab.Pod("late")
	late.Ask("http://b/").WantOK()
	a.Ask("http://late/").WantOK()
	a.Ask("http://b/").WantOK()
}

// TestARefusedListenerHurtsNobodyElse asks for a port that something else in the
// gateway's pod has taken, which only its Envoy finds out.
func TestARefusedListenerHurtsNobodyElse(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	lab.WantRejections()
	lab.Pod("b")
	client := lab.Host("client.example.net")
	gw := lab.IngressGateway()
	gw.Occupy(8443)
	lab.Apply(`
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ["*"]
  - port: {number: 8443, name: taken, protocol: HTTP}
    hosts: ["*"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: ["*"]
  gateways: [shop]
  http: [{route: [{destination: {host: b, port: {number: 80}}}]}]
`)
	client.Ask("http://" + gw.IP.String() + "/").WantOK()
	lab.WantRejected("public-default", "0.0.0.0_8443")
}
