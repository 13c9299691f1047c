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
