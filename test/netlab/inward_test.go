// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"net/netip"
	"testing"

	"github.com/isthmus-mesh/isthmus/test/netlab"
)

// TestNamesThatMeanTheGatewayItself has entries that anybody may write, for names
// that lead to the gateway's own agent and to where clouds keep credentials.
func TestNamesThatMeanTheGatewayItself(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t, netlab.WithEgressGateway, netlab.WithRegistryOnly)
	lab.EgressGateway()
	a := lab.Pod("a")
	lab.Host("api.example.com")
	lab.Name("any.example.com", netip.MustParseAddr("192.0.2.9"))
	lab.Name("agent.example.com", netip.MustParseAddr("127.0.0.1"))
	lab.Name("metadata.example.com", netip.MustParseAddr("169.254.169.254"))
	lab.Apply(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: names}
spec:
  hosts: [api.example.com, metadata.example.com]
  location: MESH_EXTERNAL
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 50051, name: grpc, protocol: GRPC}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: other-names}
spec:
  hosts: [any.example.com]
  location: MESH_EXTERNAL
  resolution: DNS_ROUND_ROBIN
  endpoints: [{address: agent.example.com}]
  ports: [{number: 15020, name: http, protocol: HTTP}]
`)
	a.Ask("http://api.example.com/").Want(200)
	a.Ask("grpc://api.example.com:50051").WantOK()
	a.Ask("http://metadata.example.com/").Want(403)
	a.Ask("http://any.example.com:15020/healthz/ready").Want(403)
}

// TestNamesThatOutsidersChoose has a wildcard whose names are looked up. A gateway
// serves whoever is outside, so no name leads it inward, with HTTP or with TLS; at a
// sidecar the names are the application's own business.
func TestNamesThatOutsidersChoose(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t, netlab.WithSidecarEgress, netlab.WithRegistryOnly)
	ingress := lab.IngressGateway()
	a := lab.Pod("a")
	client := lab.Host("client.example.net")
	lab.Host("*.looked-up.example.org")
	lab.Name("own.looked-up.example.org", netip.MustParseAddr("127.0.0.1"))
	lab.Apply(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: looked-up, namespace: isthmus-system}
spec:
  hosts: ["*.looked-up.example.org"]
  location: MESH_EXTERNAL
  resolution: DYNAMIC_DNS
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: in, namespace: isthmus-system}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*.looked-up.example.org"]}
  - {port: {number: 443, name: tls, protocol: TLS}, hosts: ["*.looked-up.example.org"], tls: {mode: PASSTHROUGH}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: in, namespace: isthmus-system}
spec:
  hosts: ["*.looked-up.example.org"]
  gateways: [in]
  http: [{route: [{destination: {host: "*.looked-up.example.org", port: {number: 80}}}]}]
  tls: [{match: [{sniHosts: ["*.looked-up.example.org"]}], route: [{destination: {host: "*.looked-up.example.org", port: {number: 443}}}]}]
`)
	gateway := ingress.IP.String()
	client.Ask("http://any.looked-up.example.org/").Via(gateway + ":80").Want(200)
	client.Ask("https://any.looked-up.example.org/").Via(gateway + ":443").WantOK()
	client.Ask("http://own.looked-up.example.org/").Via(gateway + ":80").Want(503)
	client.Ask("https://own.looked-up.example.org/").Via(gateway + ":443").WantRefused()
	a.Ask("http://own.looked-up.example.org/").Via(client.IP.String() + ":80").WantOK()
}
