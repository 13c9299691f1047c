// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// trusting is a cluster that takes endpoints for these identities.
func trusting(name, service string, identities ...string) *resource.Resource {
	r := cluster(name, name+" trusts "+strings.Join(identities, ","), service)
	r.Trusts = identities
	return r
}

func TestIdentitiesAreTakenBackAfterTheirEndpoints(t *testing.T) {
	old := trusting("c", "svc", "a", "b")
	before := []*resource.Resource{old, endpoints("svc", "of a and b")}
	tests := map[string]struct {
		next []*resource.Resource
		// first is what comes at once; then what follows its acknowledgement.
		first, then []resource.Type
	}{
		"an identity goes": {
			next:  []*resource.Resource{trusting("c", "svc", "a"), endpoints("svc", "of a")},
			first: []resource.Type{resource.Endpoint}, then: []resource.Type{resource.Cluster, resource.Endpoint},
		},
		"all go": {
			next:  []*resource.Resource{trusting("c", "svc"), endpoints("svc", "none")},
			first: []resource.Type{resource.Endpoint}, then: []resource.Type{resource.Cluster, resource.Endpoint},
		},
		"an identity goes and its endpoints are gone already": {
			next:  []*resource.Resource{trusting("c", "svc", "a"), before[1]},
			first: []resource.Type{resource.Cluster, resource.Endpoint},
		},
		"one comes": {
			next:  []*resource.Resource{trusting("c", "svc", "a", "b", "c"), endpoints("svc", "of a, b and c")},
			first: []resource.Type{resource.Cluster, resource.Endpoint}, then: []resource.Type{resource.Endpoint},
		},
		"one comes as another goes": {
			next:  []*resource.Resource{trusting("c", "svc", "a", "c"), endpoints("svc", "of a and c")},
			first: []resource.Type{resource.Cluster, resource.Endpoint}, then: []resource.Type{resource.Endpoint},
		},
		"nothing is trusted by name": {
			next:  []*resource.Resource{cluster("c", "other", "svc"), before[1]},
			first: []resource.Type{resource.Cluster, resource.Endpoint},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				m := start(t)
				m.source.set(before...)
				c := m.connect(cartNode, []string{"svc"}, nil)
				m.source.set(tc.next...)
				var got []*got
				for _, typ := range tc.first {
					got = append(got, c.next())
					if got[len(got)-1].typ != typ {
						t.Fatalf("type %d comes first, want %d", got[len(got)-1].typ, typ)
					}
				}
				c.quiet()
				if len(tc.then) > 0 && !m.server.Status()[0].Behind {
					t.Error("the proxy is not behind, though a part is yet to come")
				}
				for _, g := range got {
					c.ack(g)
				}
				for _, typ := range tc.then {
					g := c.next()
					if g.typ != typ {
						t.Fatalf("type %d follows, want %d", g.typ, typ)
					}
					c.ack(g)
				}
				c.quiet()
				if st := m.server.Status()[0]; st.Behind {
					t.Errorf("status = %+v", st)
				}
			})
		})
	}
}

func TestNarrowingWaitsNoLongerThanPatience(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(trusting("c", "svc", "a", "b"), endpoints("svc", "of a and b"))
		c := m.connect(cartNode, []string{"svc"}, nil)
		m.source.set(trusting("c", "svc", "a"), endpoints("svc", "of a"))
		c.want(resource.Endpoint, []string{"svc"}) // Acknowledgement withheld.
		c.quiet()
		pass(2 * time.Second)
		c.want(resource.Cluster, []string{"c"})
	})
}

func TestNarrowingIsOvertaken(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(trusting("c", "svc", "a", "b"), endpoints("svc", "of a and b"))
		c := m.connect(cartNode, []string{"svc"}, nil)
		m.source.set(trusting("c", "svc", "a"), endpoints("svc", "of a"))
		e := c.want(resource.Endpoint, []string{"svc"})
		m.source.set(trusting("c", "svc", "a", "c"), endpoints("svc", "of a and c"))
		wide := c.want(resource.Cluster, []string{"c"})
		c.want(resource.Endpoint, []string{"svc"})
		c.ack(e)
		c.ack(wide)
		if g := c.want(resource.Endpoint, []string{"svc"}); g.resources["svc"] != "of a and c" {
			t.Errorf("content = %q", g.resources["svc"])
		}
	})
}

func TestWorldNarrowsLater(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(trusting("c", "svc", "a", "b"), endpoints("svc", "of a and b"), cluster("d", "d1", ""))
		w := m.world(cartNode)
		w.subscribe(resource.Cluster, "")
		w.answer(w.want(resource.Cluster, "c trusts a,b", "d1"))
		w.subscribe(resource.Endpoint, "", "svc")
		w.answer(w.want(resource.Endpoint, "of a and b"))
		m.source.set(trusting("c", "svc", "a"), endpoints("svc", "of a"), cluster("d", "d2", ""))
		w.answer(w.want(resource.Cluster, "c trusts a,b", "d2"))
		w.answer(w.want(resource.Endpoint, "of a"))
		w.answer(w.want(resource.Cluster, "c trusts a", "d2"))
		w.answer(w.want(resource.Endpoint, "of a"))
		w.quiet()
	})
}
