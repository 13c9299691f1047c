// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/internal/topology"
	"github.com/isthmus-mesh/isthmus/test/netlab"
)

// withWalls allows what the operator allows where namespace "default" is the only
// member: itself, and the egress gateway.
func withWalls(c *topology.Config) {
	members := topology.Peer{Namespaces: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": "default"}}}
	c.Allowance = []topology.Flow{
		{From: members, To: []topology.Peer{members}},
		{From: members, To: []topology.Peer{{Namespace: c.Namespace, Pods: &metav1.LabelSelector{MatchLabels: c.EgressGateway.Labels}}}},
	}
}

// TestWhatPoliciesDropIsAnsweredAtOnce runs without NetworkPolicies: whatever is
// refused here the proxy refuses.
func TestWhatPoliciesDropIsAnsweredAtOnce(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t, netlab.WithEgressGateway)
	gw, a, b := lab.EgressGateway(), lab.Pod("a"), lab.Pod("b")
	old := lab.Add(netlab.PodSpec{Name: "old", Namespace: "legacy"})
	lab.Host("api.example.com", "other.example.net")
	lab.Apply(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api}
spec: {hosts: [api.example.com], location: MESH_EXTERNAL, resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}
`)
	a.Ask("http://old.legacy/").WantOK()
	a.Ask("tcp://old.legacy:9000").WantOK()
	a.Ask("http://other.example.net/").WantOK()

	lab.Configure(withWalls)
	a.Ask("http://old.legacy/").Want(502)
	a.Ask("tcp://old.legacy:9000").WantRefused()
	a.Ask("tcp://" + old.IP.String() + ":9000").WantRefused()
	a.Ask("http://other.example.net/").Want(502)
	a.Ask("http://b/").WantOK()
	a.Ask("tcp://b:9000").WantOK()
	b.Ask("http://api.example.com/").Until(gw.CheckCalled)
}
