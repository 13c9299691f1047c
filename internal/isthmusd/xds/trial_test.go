// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/xds"
)

func fleet(m *mesh, n int) []*client {
	m.t.Helper()
	out := make([]*client, n)
	for i := range out {
		out[i] = m.connect("sidecar~10.0.0.7~cart-"+string(rune('1'+i))+".shop~shop.svc.cluster.local", nil, nil)
	}
	return out
}

// heard is the one client that has a response, and it; nil when none has.
func heard(t *testing.T, cs []*client) (*client, *got) {
	t.Helper()
	synctest.Wait()
	var who *client
	var what *got
	for _, c := range cs {
		select {
		case g := <-c.in:
			if who != nil {
				t.Fatal("several proxies got the new bytes at once")
			}
			who, what = c, g
		default:
		}
	}
	return who, what
}

func others(cs []*client, but ...*client) []*client {
	var out []*client
	for _, c := range cs {
		keep := true
		for _, b := range but {
			keep = keep && c != b
		}
		if keep {
			out = append(out, c)
		}
	}
	return out
}

func TestOneProxyFirst(t *testing.T) {
	tests := map[string]struct {
		act func(c *client, g *got)
	}{
		"then all when it accepts": {act: func(c *client, g *got) { c.ack(g) }},
		"then all after 300 ms":    {act: func(*client, *got) { pass(300 * time.Millisecond) }},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				m := start(t)
				m.source.set(listener("l", "1"))
				cs := fleet(m, 3)
				m.source.set(listener("l", "2"))
				first, g := heard(t, cs)
				if first == nil {
					t.Fatal("no proxy got the new bytes")
				}
				tc.act(first, g)
				for _, c := range others(cs, first) {
					c.ack(c.want(resource.Listener, []string{"l"}))
				}
			})
		})
	}
}

func TestEndpointsAreNotTried(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(endpoints("a", "1"))
		cs := fleet(m, 3)
		for _, c := range cs {
			c.subscribe(resource.Endpoint, "a")
			c.ack(c.want(resource.Endpoint, []string{"a"}))
		}
		m.source.set(endpoints("a", "2"))
		for _, c := range cs {
			c.want(resource.Endpoint, []string{"a"})
		}
	})
}

// rejects answers that a listener is bad, and once more when it comes alone, and
// takes what follows.
func (c *client) rejects(g *got, name string) {
	c.t.Helper()
	why := "Error adding/updating listener(s) " + name + ": no"
	c.nack(g, why)
	if len(g.resources) > 1 {
		c.nack(c.want(resource.Listener, []string{name}), why)
	}
	for g := c.soon(); g != nil; g = c.soon() {
		c.ack(g)
	}
}

func TestWhatTwoProxiesRejectNobodyElseGets(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t, func(o *xds.Options) {
			o.Owners = func(r *resource.Resource) []string { return []string{"owner of " + r.Name} }
		})
		m.source.set(listener("bad", "1"), listener("good", "1"))
		cs := fleet(m, 4)
		m.source.set(listener("bad", "2"), listener("good", "2"))
		first, g := heard(t, cs)
		first.rejects(g, "bad")
		second, g := heard(t, others(cs, first))
		if second == nil {
			t.Fatal("nobody tried after the first rejection")
		}
		if q := m.server.Quarantined(); len(q) != 1 || q[0].Withheld || !slices.Equal(q[0].Owners, []string{"owner of bad"}) {
			t.Errorf("after one rejection: %+v, want it named with its owner, and not withheld", q)
		}
		second.rejects(g, "bad")
		for _, c := range others(cs, first, second) {
			c.ack(c.want(resource.Listener, []string{"good"}))
		}
		q := m.server.Quarantined()
		if len(q) != 1 || q[0].Name != "bad" || q[0].Type != "lds" || !q[0].Withheld || len(q[0].By) != 2 {
			t.Fatalf("quarantined = %+v", q)
		}
		late := m.delta(cartNode)
		late.subscribe(resource.Listener)
		g = late.want(resource.Listener, []string{"bad", "good"})
		if g.resources["bad"] != "1" || g.resources["good"] != "2" {
			t.Errorf("a new proxy got %v, want the last good bytes of bad", g.resources)
		}
		late.ack(g)
		late.cancel()

		m.source.set(listener("bad", "3"), listener("good", "2"))
		first, g = heard(t, cs)
		first.ack(g)
		for _, c := range others(cs, first) {
			if g := c.want(resource.Listener, []string{"bad"}); g.resources["bad"] != "3" {
				t.Errorf("content = %q: what changed is a new chance", g.resources["bad"])
			}
		}
	})
}

func TestOneProxyMayNotRejectTwice(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(listener("l", "1"))
		cs := fleet(m, 2)
		m.source.set(listener("l", "2"))
		first, g := heard(t, cs)
		first.rejects(g, "l")
		second, g := heard(t, others(cs, first))
		second.ack(g)
		first.cancel()
		synctest.Wait()
		again := m.delta(first.id)
		again.subscribe(resource.Listener)
		again.rejects(again.want(resource.Listener, []string{"l"}), "l")
		again.quiet()
		if q := m.server.Quarantined(); len(q) != 1 || q[0].Withheld || len(q[0].By) != 1 {
			t.Errorf("quarantined = %+v, want one proxy named and nothing withheld", q)
		}
	})
}

func TestOneProxysOwnFaultHurtsNobody(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(listener("l", "1"))
		cs := fleet(m, 3)
		m.source.set(listener("l", "2"))
		first, g := heard(t, cs)
		first.nack(g, "l: address in use")
		second, g := heard(t, others(cs, first))
		second.ack(g)
		for _, c := range others(cs, first, second) {
			c.ack(c.want(resource.Listener, []string{"l"}))
		}
		if q := m.server.Quarantined(); len(q) != 1 || q[0].Withheld || q[0].By[0] != "shop/"+first.pod() {
			t.Errorf("quarantined = %+v, want the one proxy named and nothing withheld", q)
		}
	})
}

func TestWorldWithheldToo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(listener("bad", "b1"), listener("good", "g1"))
		cs := fleet(m, 2)
		m.source.set(listener("bad", "b2"), listener("good", "g2"))
		first, g := heard(t, cs)
		first.rejects(g, "bad")
		second, g := heard(t, others(cs, first))
		second.rejects(g, "bad")
		synctest.Wait()
		w := m.world(cartNode)
		w.subscribe(resource.Listener, "")
		w.answer(w.want(resource.Listener, "b1", "g2"))
		w.quiet()
	})
}
