// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

func TestFirstRequestIsAnsweredThoughEmpty(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := start(t).delta(cartNode)
		c.subscribe(resource.Cluster)
		c.ack(c.want(resource.Cluster, []string{}))
		c.subscribe(resource.Listener)
		c.ack(c.want(resource.Listener, []string{}))
		c.quiet()
	})
}

func TestOnlyWhatChangedIsSent(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		a, b := cluster("a", "1", "a"), cluster("b", "1", "b")
		ea, eb := endpoints("a", "x"), endpoints("b", "x")
		m.source.set(a, b, ea, eb)
		c := m.connect(cartNode, []string{"a", "b"}, nil)

		eb2 := endpoints("b", "y")
		m.source.set(a, b, ea, eb2)
		g := c.want(resource.Endpoint, []string{"b"})
		if g.resources["b"] != "y" {
			t.Errorf("content = %q, want y", g.resources["b"])
		}
		c.ack(g)
		m.source.set(a, b, ea, endpoints("b", "y"))
		c.quiet()
		if st := m.server.Status(); len(st) != 1 || st[0].Behind || st[0].Acknowledged.Revision != 4 {
			t.Errorf("status = %+v, want everything of revision 4 acknowledged", st[0])
		}
	})
}

func TestUnknownNamesAreAnsweredAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(endpoints("a", "1"))
		c := m.delta(cartNode)
		c.subscribe(resource.Endpoint, "a", "nowhere")
		c.ack(c.want(resource.Endpoint, []string{"a"}, "nowhere"))
		c.subscribe(resource.Route, "80")
		c.ack(c.want(resource.Route, []string{}, "80"))
		m.source.set(endpoints("a", "1"), endpoints("nowhere", "1"))
		c.ack(c.want(resource.Endpoint, []string{"nowhere"}))
		c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: resource.Endpoint.URL(), ResourceNamesUnsubscribe: []string{"a"}})
		c.quiet()
		m.source.set(endpoints("a", "2"), endpoints("nowhere", "1"))
		c.quiet()
		c.subscribe(resource.Endpoint, "a")
		c.want(resource.Endpoint, []string{"a"})
	})
}

func TestUnservedTypesDoNotExist(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := start(t).delta(cartNode)
		c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig", ResourceNamesSubscribe: []string{"x"}})
		if g := c.next(); len(g.removed) != 1 || g.removed[0] != "x" {
			t.Errorf("removed = %v, want x", g.removed)
		}
	})
}

func TestTheTableOfNamesIsEmptyAndSentOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const names = "type.googleapis.com/istio.networking.nds.v1.NameTable"
		m := start(t)
		s, err := discovery.NewAggregatedDiscoveryServiceClient(m.conn).DeltaAggregatedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		send(t, s, &discovery.DeltaDiscoveryRequest{Node: node(cartNode), TypeUrl: names})
		r, err := s.Recv()
		if err != nil || r.GetTypeUrl() != names || len(r.GetResources()) != 1 || len(r.GetResources()[0].GetResource().GetValue()) != 0 {
			t.Fatalf("got %v, %v", r, err)
		}
		send(t, s, &discovery.DeltaDiscoveryRequest{TypeUrl: names, ResponseNonce: r.GetNonce()})
		send(t, s, &discovery.DeltaDiscoveryRequest{TypeUrl: resource.Cluster.URL()})
		if r, err = s.Recv(); err != nil || r.GetTypeUrl() != resource.Cluster.URL() {
			t.Errorf("after its acknowledgement comes %v, %v", r, err)
		}
	})
}

func TestEndpointsGoAgainAfterTheirCluster(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		a, e := cluster("a", "1", "svc"), endpoints("svc", "x")
		m.source.set(a, e)
		c := m.connect(cartNode, []string{"svc"}, nil)

		m.source.set(cluster("a", "2", "svc"), e)
		changed := c.want(resource.Cluster, []string{"a"})
		c.ack(c.want(resource.Endpoint, []string{"svc"}))
		c.ack(changed)
		c.quiet()

		// A second cluster of the same service: Envoy does not ask for a name that it has.
		m.source.set(cluster("a", "2", "svc"), cluster("b", "1", "svc"), e)
		c.ack(c.want(resource.Cluster, []string{"b"}))
		c.ack(c.want(resource.Endpoint, []string{"svc"}))
		c.quiet()
	})
}

func TestNewEndpointsWaitForTheirCluster(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(cluster("a", "1", "svc"), endpoints("svc", "old"))
		c := m.connect(cartNode, []string{"svc"}, nil)

		m.source.set(cluster("a", "wider names", "svc"), endpoints("svc", "with a new account"))
		wide := c.want(resource.Cluster, []string{"a"})
		again := c.want(resource.Endpoint, []string{"svc"})
		if again.resources["svc"] != "old" {
			t.Errorf("before the acknowledgement: %q, want the old endpoints", again.resources["svc"])
		}
		c.ack(again)
		c.quiet()
		if st := m.server.Status()[0]; !st.Behind {
			t.Error("status is not behind while endpoints are held back")
		}
		c.ack(wide)
		newer := c.want(resource.Endpoint, []string{"svc"})
		if newer.resources["svc"] != "with a new account" {
			t.Errorf("after the acknowledgement: %q", newer.resources["svc"])
		}
		c.ack(newer)
		c.quiet()

		m.source.set(cluster("a", "withheld", "svc"), endpoints("svc", "third"))
		c.want(resource.Cluster, []string{"a"})
		c.ack(c.want(resource.Endpoint, []string{"svc"}))
		c.quiet()
		pass(2 * time.Second)
		if g := c.want(resource.Endpoint, []string{"svc"}); g.resources["svc"] != "third" {
			t.Errorf("after patience: %q, want third", g.resources["svc"])
		}
	})
}

func TestListenersFollowClusters(t *testing.T) {
	tests := map[string]struct {
		act func(c *client, clusters *got)
	}{
		"on acknowledgement": {act: func(c *client, g *got) { c.ack(g) }},
		"on rejection":       {act: func(c *client, g *got) { c.nack(g, "no") }},
		"after patience":     {act: func(*client, *got) { pass(2 * time.Second) }},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				m := start(t)
				m.source.set(cluster("a", "1", ""), listener("l", "1"), route("r", "1"))
				c := m.connect(cartNode, nil, []string{"r"})
				m.source.set(cluster("a", "1", ""), cluster("b", "1", ""), listener("l", "2"), route("r", "2"))
				g := c.want(resource.Cluster, []string{"b"})
				c.quiet()
				tc.act(c, g)
				c.ack(c.want(resource.Listener, []string{"l"}))
				c.ack(c.want(resource.Route, []string{"r"}))
				c.quiet()
			})
		})
	}
}

func TestRoutesOfNewListenersWaitWithThem(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(cluster("a", "1", ""), listener("l", "1"))
		c := m.connect(cartNode, nil, nil)
		m.source.set(cluster("b", "1", ""), cluster("a", "1", ""), listener("l", "1"), route("r", "1"))
		g := c.want(resource.Cluster, []string{"b"})
		c.subscribe(resource.Route, "r")
		c.quiet()
		c.ack(g)
		c.want(resource.Route, []string{"r"})
	})
}

func TestClustersLeaveLast(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(cluster("a", "1", "a"), cluster("b", "1", "b"), endpoints("a", "1"), endpoints("b", "1"), listener("l", "1"))
		c := m.connect(cartNode, []string{"a", "b"}, nil)

		m.source.set(cluster("a", "1", "a"), endpoints("a", "1"), endpoints("b", "1"), listener("l", "2"))
		l := c.want(resource.Listener, []string{"l"})
		pass(5 * time.Minute)
		c.quiet() // The listener with b is still in use.
		c.ack(l)
		pass(49 * time.Second)
		c.quiet()
		pass(time.Second)
		c.ack(c.want(resource.Cluster, []string{}, "b"))
		c.quiet()
	})
}

func TestRemovalWaitsForNoAcknowledgementOfClusters(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(cluster("a", "1", ""), cluster("b", "1", ""), listener("l", "1"))
		c := m.connect(cartNode, nil, nil)
		m.source.set(cluster("a", "1", ""), listener("l", "1"))
		pass(49 * time.Second)
		m.source.set(cluster("a", "2", ""), listener("l", "1"))
		c.want(resource.Cluster, []string{"a"}) // Acknowledgement withheld.
		pass(time.Second)
		c.want(resource.Cluster, []string{}, "b")
		c.quiet()
	})
}

func TestClusterThatComesBackStays(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		a, b := cluster("a", "1", ""), cluster("b", "1", "")
		m.source.set(a, b, listener("l", "1"))
		c := m.connect(cartNode, nil, nil)
		m.source.set(a, listener("l", "1"))
		pass(30 * time.Second)
		m.source.set(a, b, listener("l", "1"))
		pass(10 * time.Minute)
		c.quiet()
		m.source.set(a, listener("l", "1"))
		pass(30 * time.Second)
		m.source.set(a, cluster("b", "2", ""), listener("l", "1"))
		c.ack(c.want(resource.Cluster, []string{"b"}))
		pass(10 * time.Minute)
		c.quiet()
	})
}

func TestReconnectWithVersions(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		rs := []*resource.Resource{cluster("a", "1", "svc"), endpoints("svc", "1"), listener("l", "1"), route("r", "1")}
		m.source.set(rs...)
		first := m.delta(cartNode)
		have := map[resource.Type]map[string]string{}
		for _, sub := range []struct {
			t     resource.Type
			names []string
		}{{resource.Cluster, nil}, {resource.Endpoint, []string{"svc"}}, {resource.Listener, nil}, {resource.Route, []string{"r"}}} {
			first.subscribe(sub.t, sub.names...)
			g := first.next()
			have[sub.t] = g.versions
			first.ack(g)
		}
		first.cancel()
		again := func(t resource.Type, extra map[string]string, names ...string) *discovery.DeltaDiscoveryRequest {
			v := map[string]string{}
			for n, x := range have[t] {
				v[n] = x
			}
			for n, x := range extra {
				v[n] = x
			}
			return &discovery.DeltaDiscoveryRequest{TypeUrl: t.URL(), ResourceNamesSubscribe: names, InitialResourceVersions: v}
		}

		same := m.delta(cartNode)
		same.send(again(resource.Cluster, nil))
		same.send(again(resource.Endpoint, nil, "svc"))
		same.send(again(resource.Listener, nil))
		same.send(again(resource.Route, nil, "r"))
		same.quiet()
		if st := m.server.Status()[0]; st.Behind {
			t.Errorf("status = %+v, want nothing behind", st)
		}
		same.cancel()

		// Endpoints first, unchanged; then the clusters, of which one changed meanwhile.
		m.source.set(cluster("a", "2", "svc"), endpoints("svc", "1"), listener("l", "1"), route("r", "1"))
		c := m.delta(cartNode)
		c.send(again(resource.Endpoint, nil, "svc"))
		c.quiet()
		c.send(again(resource.Cluster, nil))
		c.ack(c.want(resource.Cluster, []string{"a"}))
		c.ack(c.want(resource.Endpoint, []string{"svc"}))
		c.quiet()
		c.cancel()

		// Clusters first; the endpoints are asked for afterwards with the version that they have.
		c = m.delta(cartNode)
		c.send(again(resource.Cluster, map[string]string{"gone": "1"}))
		c.ack(c.want(resource.Cluster, []string{"a"}))
		c.send(again(resource.Endpoint, map[string]string{"gone": "1"}, "svc", "gone"))
		c.ack(c.want(resource.Endpoint, []string{"svc"}, "gone"))
		c.send(again(resource.Listener, map[string]string{"gone": "1"}))
		c.ack(c.want(resource.Listener, []string{}, "gone"))
		c.quiet()
		pass(50 * time.Second)
		c.want(resource.Cluster, []string{}, "gone")
	})
}

func TestRejectedBytesAreNotSentAgain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(listener("good", "1"), listener("bad", "1"))
		c := m.connect(cartNode, nil, nil)
		m.source.set(listener("good", "1"), listener("bad", "2"))
		c.nack(c.want(resource.Listener, []string{"bad"}), "Error adding/updating listener(s) bad: address in use")
		if g := c.want(resource.Listener, []string{"bad"}); g.resources["bad"] != "1" {
			t.Errorf("content = %q, want the last good bytes", g.resources["bad"])
		} else {
			c.ack(g)
		}
		c.quiet()
		st := m.server.Status()[0]
		lds := st.Types.ByName()["lds"]
		if !st.Behind || lds.Rejections != 1 || len(lds.Refused) != 1 || lds.Refused[0].Name != "bad" {
			t.Errorf("status = %+v", st)
		}
		if d := m.server.Distribution(st.Newest.Epoch); len(d.Proxies) != 1 || d.Proxies[0].State != "Rejected" {
			t.Errorf("distribution = %+v", d)
		}
		// Others go on; the bad one does not come again by itself.
		m.source.set(listener("good", "2"), listener("bad", "2"))
		c.ack(c.want(resource.Listener, []string{"good"}))
		c.quiet()
		if len(m.server.Status()[0].Types.ByName()["lds"].Refused) != 1 {
			t.Error("the refusal was forgotten with another resource's acknowledgement")
		}
		m.source.set(listener("good", "2"), listener("bad", "1"))
		c.ack(c.want(resource.Listener, []string{"bad"}))
		c.quiet()
		if st := m.server.Status()[0]; st.Behind {
			t.Errorf("status = %+v, want healed", st)
		}
	})
}

func TestOneResponseUnderWay(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(listener("l", "1"))
		c := m.connect(cartNode, nil, nil)
		m.source.set(listener("l", "2"))
		slow := c.want(resource.Listener, []string{"l"})
		m.source.set(listener("l", "3"))
		c.quiet()
		m.source.set(listener("l", "4"))
		c.quiet()
		c.ack(slow)
		if g := c.want(resource.Listener, []string{"l"}); g.resources["l"] != "4" {
			t.Errorf("content = %q, want 4: what lay between is skipped", g.resources["l"])
		}
	})
}

func TestStaleNonceChangesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(listener("l", "1"))
		c := m.connect(cartNode, nil, nil)
		c.nack(&got{typ: resource.Listener, nonce: "never sent"}, "no")
		c.quiet()
		if st := m.server.Status()[0]; st.Behind || st.Types.ByName()["lds"].Rejections != 0 {
			t.Errorf("status = %+v", st)
		}
	})
}

func TestExplicitClusters(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(cluster("a", "1", ""), cluster("b", "1", ""))
		c := m.delta(cartNode)
		c.subscribe(resource.Cluster, "a", "x")
		c.ack(c.want(resource.Cluster, []string{"a"}, "x"))
		m.source.set(cluster("a", "1", ""), cluster("b", "2", ""))
		c.quiet()
		c.subscribe(resource.Cluster, "*")
		c.ack(c.want(resource.Cluster, []string{"a", "b"}))
		c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: resource.Cluster.URL(), ResourceNamesUnsubscribe: []string{"*"}})
		c.quiet()
		m.source.set(cluster("a", "2", ""), cluster("b", "3", ""))
		c.want(resource.Cluster, []string{"a"})
	})
}
