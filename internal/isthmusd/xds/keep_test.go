// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// TestAClusterTurnsWhenListenersAreAskedFor: one that begins or ends to have its
// endpoints from the server stays as it was while the client starts.
func TestAClusterTurnsWhenListenersAreAskedFor(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(cluster("from", "eds", "svc"), endpoints("svc", "e"), cluster("to", "static", ""))
		c := m.delta(cartNode)
		c.subscribe(resource.Cluster)
		c.ack(c.want(resource.Cluster, []string{"from", "to"}))
		m.source.set(cluster("from", "static", ""), cluster("to", "eds", "other"), endpoints("other", "o"), cluster("new", "n", ""))
		c.ack(c.want(resource.Cluster, []string{"new"}))
		c.subscribe(resource.Endpoint, "svc")
		c.ack(c.want(resource.Endpoint, nil, "svc")) // which ends its wait
		c.quiet()
		if !m.server.Status()[0].Behind {
			t.Error("the proxy is not behind, though two clusters are yet to change")
		}
		c.subscribe(resource.Listener)
		c.ack(c.want(resource.Cluster, []string{"from", "to"}))
		c.ack(c.want(resource.Listener, nil))
		c.quiet()
	})
}

func TestAClusterTurnsForAClientWithoutListeners(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(cluster("a", "eds", "svc"))
		c := m.delta(cartNode)
		c.subscribe(resource.Cluster)
		c.ack(c.want(resource.Cluster, []string{"a"}))
		m.source.set(cluster("a", "static", ""))
		c.quiet()
		pass(30 * time.Second)
		c.ack(c.want(resource.Cluster, []string{"a"}))
		c.quiet()
	})
}

// TestWorldIsToldOfNoEndpoints: that a service is not there cannot be said but by an
// answer in its name.
func TestWorldIsToldOfNoEndpoints(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(cluster("a", "eds", "svc"))
		w := m.world(cartNode)
		w.subscribe(resource.Cluster, "")
		w.answer(w.want(resource.Cluster, "eds"))
		m.source.set(cluster("a", "static", ""))
		w.quiet()
		w.subscribe(resource.Endpoint, "", "svc")
		w.answer(w.want(resource.Endpoint, "\x0a\x03svc"))
		w.subscribe(resource.Listener, "")
		w.answer(w.want(resource.Cluster, "static"))
		w.answer(w.want(resource.Listener))
		w.quiet()
	})
}
