// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/test/netlab"
)

func TestPortsOfNoProtocolAreCheckedByWhatTheyCarry(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t, netlab.WithEgressGateway, netlab.WithRegistryOnly)
	gw, a := lab.EgressGateway(), lab.Pod("a")
	at := lab.Host("api.example.com").IP.String()
	lab.Apply(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api}
spec:
  hosts: [api.example.com]
  addresses: [` + at + `]
  location: MESH_EXTERNAL
  resolution: DNS
  ports: [{number: 80, name: one}, {number: 443, name: two}, {number: 9000, name: three}]
`)
	a.Ask("http://api.example.com/").Until(from(gw))
	a.Ask("http2://api.example.com/").Until(from(gw))
	a.Ask("https://api.example.com/").Until(from(gw))
	a.Ask("tcp://api.example.com:9000").Until(from(gw))
	a.Ask("http://wrong.example.net/").Via(at + ":80").Want(403)
	a.Ask("https://wrong.example.net/").Via(at + ":443").WantRefused()
	gw.WantLog("BlackHoleCluster", "wrong.example.net", "spiffe://cluster.local/ns/default/sa/a")
}
