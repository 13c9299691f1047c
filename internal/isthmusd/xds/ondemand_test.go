// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/xds"
)

// onDemand is a cluster that goes to who asks for it.
func onDemand(name, content, service string) *resource.Resource {
	r := cluster(name, content, service)
	r.OnDemand = true
	return r
}

// mirrored is a host that copies requests to a cluster.
func mirrored(name, content, to string) *resource.Resource {
	r := host(name, content)
	r.Mirrors = []string{to}
	return r
}

// asking is a client on demand, of this workload.
func (m *mesh) asking(id, workload string) *client {
	m.t.Helper()
	c := m.delta(id)
	c.node.Metadata = asks(workload)
	return c
}

func asks(workload string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{
		"ISTHMUS_DISCOVERY": structpb.NewStringValue("OnDemand"), "WORKLOAD_NAME": structpb.NewStringValue(workload),
	}}
}

func TestClustersGoToWhoAsks(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		base, a, b := cluster("base", "1", ""), onDemand("a", "1", "svc-a"), onDemand("b", "1", "")
		m.source.set(base, a, b, endpoints("svc-a", "1"))
		c := m.asking(cartNode, "cart")
		c.subscribe(resource.Cluster)
		c.ack(c.want(resource.Cluster, []string{"base"}))
		c.subscribe(resource.Listener)
		c.ack(c.want(resource.Listener, []string{}))
		c.quiet()

		c.subscribe(resource.Cluster, "a")
		g := c.want(resource.Cluster, []string{"a"})
		c.subscribe(resource.Endpoint, "svc-a") // Envoy acknowledges when these are there.
		c.ack(c.want(resource.Endpoint, []string{"svc-a"}))
		c.ack(g)
		c.quiet()

		// What was asked for is kept up to date, what was not is left out.
		m.source.set(base, onDemand("a", "2", "svc-a"), onDemand("b", "2", ""), endpoints("svc-a", "1"))
		c.ack(c.want(resource.Cluster, []string{"a"}))
		c.ack(c.want(resource.Endpoint, []string{"svc-a"}))
		c.quiet()

		// What does not exist is told at once, and comes when it does.
		c.subscribe(resource.Cluster, "later")
		c.ack(c.want(resource.Cluster, []string{}, "later"))
		m.source.set(base, onDemand("a", "2", "svc-a"), onDemand("later", "1", ""), endpoints("svc-a", "1"))
		c.ack(c.want(resource.Cluster, []string{"later"}))
		c.quiet()
		if st := m.server.Status()[0]; !st.OnDemand || !st.HostsApart || st.Behind {
			t.Errorf("status %+v", st)
		}
	})
}

// TestWhatBecomesNecessaryComesUnasked: Envoy never asks for mirrors, so they are
// there before the host that copies to them, and stay up to date after it.
func TestWhatBecomesNecessaryComesUnasked(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(table("v.80", "1"), host("v.80/a", "1"), onDemand("copy", "1", ""), onDemand("b", "1", ""))
		c := m.asking(cartNode, "cart")
		c.subscribe(resource.Cluster)
		c.ack(c.want(resource.Cluster, []string{}))
		c.subscribe(resource.Route, "v.80")
		c.ack(c.want(resource.Route, []string{"v.80"}))
		c.subscribe(resource.VirtualHost)
		c.ack(c.want(resource.VirtualHost, []string{"v.80/a"}, "v.80/none"))

		m.source.set(table("v.80", "1"), mirrored("v.80/a", "2", "copy"), onDemand("copy", "1", ""), onDemand("b", "1", ""))
		g := c.want(resource.Cluster, []string{"copy"})
		c.quiet()
		c.ack(g)
		c.ack(c.want(resource.VirtualHost, []string{"v.80/a"}))
		m.source.set(table("v.80", "1"), host("v.80/a", "1"), onDemand("copy", "2", ""), onDemand("b", "1", ""))
		c.ack(c.want(resource.Cluster, []string{"copy"}))
		c.ack(c.want(resource.VirtualHost, []string{"v.80/a"}))
		c.quiet()
	})
}

func TestAskedClustersGoAfterTheirHosts(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t, func(o *xds.Options) { o.Linger = time.Minute })
		m.source.set(table("v.80", "1"), host("v.80/a", "1"), onDemand("a", "1", ""))
		c := m.asking(cartNode, "cart")
		c.subscribe(resource.Cluster)
		c.ack(c.want(resource.Cluster, []string{}))
		c.subscribe(resource.Cluster, "a")
		c.ack(c.want(resource.Cluster, []string{"a"}))
		c.subscribe(resource.Route, "v.80")
		c.ack(c.want(resource.Route, []string{"v.80"}))
		c.subscribe(resource.VirtualHost)
		c.ack(c.want(resource.VirtualHost, []string{"v.80/a"}, "v.80/none"))
		c.quiet()

		m.source.set(table("v.80", "1"))
		g := c.want(resource.VirtualHost, []string{}, "v.80/a")
		pass(5 * time.Minute)
		c.quiet() // Who has not taken the host away still uses the cluster.
		c.ack(g)
		c.quiet()
		pass(time.Minute)
		c.ack(c.want(resource.Cluster, []string{}, "a"))
		m.source.set(table("v.80", "1"), host("v.80/a", "1"), onDemand("a", "1", ""))
		c.ack(c.want(resource.Cluster, []string{"a"}))
		c.ack(c.want(resource.VirtualHost, []string{"v.80/a"}))
	})
}

// TestWhoComesBackOnDemand has what it had: at a replica that never heard of it,
// whether it asked for it or was given it.
func TestWhoComesBackOnDemand(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t, func(o *xds.Options) { o.Linger = time.Minute })
		base, a, b, x := cluster("base", "1", ""), onDemand("a", "1", ""), onDemand("b", "1", ""), onDemand("x", "1", "")
		m.source.set(base, a, b, x)
		had := map[string]string{"base": version(base), "a": version(a), "b": version(b), "gone": "1"}
		back := func() *client {
			c := m.asking(cartNode, "cart")
			c.send(&discovery.DeltaDiscoveryRequest{
				TypeUrl: resource.Cluster.URL(), ResourceNamesSubscribe: []string{"*", "a", "gone"}, InitialResourceVersions: had,
			})
			return c
		}
		c := back()
		c.quiet() // Listeners may still use what is gone.
		c.subscribe(resource.Listener)
		c.ack(c.want(resource.Listener, []string{}))
		c.quiet()
		pass(time.Minute)
		c.ack(c.want(resource.Cluster, []string{}, "gone"))
		m.source.set(base, onDemand("a", "2", ""), onDemand("b", "2", ""), onDemand("x", "2", ""))
		c.ack(c.want(resource.Cluster, []string{"a", "b"}))
		c.quiet()

		delete(had, "gone")
		c = back()
		c.ack(c.want(resource.Cluster, []string{"a", "b"}, "gone")) // It still asks for it.
		c.quiet()
	})
}

// TestWhatAWorkloadAskedForItsNextPodHas before its first request.
func TestWhatAWorkloadAskedForItsNextPodHas(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(cluster("base", "1", ""), onDemand("a", "1", ""), onDemand("b", "1", ""))
		first := m.asking(cartNode, "cart")
		first.subscribe(resource.Cluster)
		first.ack(first.want(resource.Cluster, []string{"base"}))
		first.subscribe(resource.Cluster, "a", "unheard-of")
		first.ack(first.want(resource.Cluster, []string{"a"}, "unheard-of"))

		for id, want := range map[string]struct {
			workload string
			names    []string
		}{
			"sidecar~10.0.0.8~cart-2.shop~shop.svc.cluster.local": {"cart", []string{"a", "base"}},
			"sidecar~10.0.0.9~till-1.shop~shop.svc.cluster.local": {"till", []string{"base"}},
			"sidecar~10.0.0.9~cart-1.bank~bank.svc.cluster.local": {"cart", []string{"base"}},
		} {
			c := m.asking(id, want.workload)
			c.subscribe(resource.Cluster)
			c.ack(c.want(resource.Cluster, want.names))
			c.quiet()
		}
	})
}

// TestStateOfTheWorldHasAllClusters: there is no asking for one.
func TestStateOfTheWorldHasAllClusters(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(cluster("base", "1", ""), onDemand("a", "2", ""))
		w := m.world(cartNode)
		w.node.Metadata = asks("cart")
		w.send(&discovery.DiscoveryRequest{TypeUrl: resource.Cluster.URL()})
		if g := w.soon(); g == nil || len(g.names()) != 2 {
			t.Errorf("got %+v, want both clusters", g)
		}
	})
}
