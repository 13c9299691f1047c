// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// refused lists what the one proxy has rejected.
func (m *mesh) refused(typ string) []string {
	var out []string
	for _, r := range m.server.Status()[0].Types.ByName()[typ].Refused {
		out = append(out, r.Name)
	}
	return out
}

// judge answers until nothing comes any more: what holds a bad name is rejected,
// unless it is as it was at first.
func (c *client) judge(why string, bad ...string) (responses int) {
	c.t.Helper()
	for {
		g := c.soon()
		if g == nil {
			return responses
		}
		responses++
		if slices.ContainsFunc(bad, func(n string) bool { content, has := g.resources[n]; return has && content != "1" }) {
			c.nack(g, why)
			continue
		}
		c.ack(g)
	}
}

func TestWhatWasRejectedTogetherComesInParts(t *testing.T) {
	tests := map[string]struct {
		routes int
		why    string
		bad    []string
		// most responses that it may take.
		most int
	}{
		"each alone when they are few":       {routes: 3, why: "no names here", bad: []string{"r01"}, most: 5},
		"in halves when they are many":       {routes: 64, why: "no names here", bad: []string{"r17"}, most: 2 + 2*3 + 8},
		"two of many":                        {routes: 64, why: "no names here", bad: []string{"r00", "r63"}, most: 2 + 2*2*3 + 16},
		"all of them":                        {routes: 4, why: "no names here", bad: []string{"r00", "r01", "r02", "r03"}, most: 6},
		"only those that the message blames": {routes: 64, why: "error(s) r17: bad, r18: bad, xr19: bad", bad: []string{"r17"}, most: 5},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				m := start(t)
				var names []string
				with := func(content string) {
					var rs []*resource.Resource
					for _, n := range names {
						rs = append(rs, route(n, content))
					}
					m.source.set(rs...)
				}
				for i := range tc.routes {
					names = append(names, fmt.Sprintf("r%02d", i))
				}
				with("1")
				c := m.connect(cartNode, nil, names)
				with("2")
				if n := c.judge(tc.why, tc.bad...); n > tc.most {
					t.Errorf("it took %d responses, want at most %d", n, tc.most)
				}
				if got := m.refused("rds"); !slices.Equal(got, tc.bad) {
					t.Errorf("refused = %v, want %v", got, tc.bad)
				}
				with("3")
				c.judge("")
				if st := m.server.Status()[0]; st.Behind {
					t.Errorf("status = %+v, want healed", st)
				}
			})
		})
	}
}

func TestSuspectsThatChangeAreNotSentAgain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(route("a", "1"), route("b", "1"), route("c", "1"))
		c := m.connect(cartNode, nil, []string{"a", "b", "c"})
		m.source.set(route("a", "2"), route("b", "2"), route("c", "2"))
		c.nack(c.want(resource.Route, []string{"a", "b", "c"}), "?")
		a := c.want(resource.Route, []string{"a"})
		m.source.set(route("a", "2"), route("b", "3"), route("c", "2"))
		c.ack(a)
		// The examination goes on with what was sent; what is new comes after it.
		c.nack(c.want(resource.Route, []string{"b"}), "?")
		c.ack(c.want(resource.Route, []string{"c"}))
		for _, want := range []string{"1", "3"} { // What it has kept, then what is new.
			g := c.want(resource.Route, []string{"b"})
			if g.resources["b"] != want {
				t.Errorf("content = %q, want %q", g.resources["b"], want)
			}
			c.ack(g)
		}
		c.quiet()
		if st := m.server.Status()[0]; st.Behind {
			t.Errorf("status = %+v, want healed", st)
		}
	})
}

func TestTheOnlyProxyDecidesAlone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(listener("l", "1"))
		c := m.connect(cartNode, nil, nil)
		m.source.set(listener("l", "2"))
		c.nack(c.want(resource.Listener, []string{"l"}), "no")
		c.ack(c.want(resource.Listener, []string{"l"}))
		c.quiet()
		late := m.delta("sidecar~10.0.0.8~cart-2.shop~shop.svc.cluster.local")
		late.subscribe(resource.Listener)
		if g := late.want(resource.Listener, []string{"l"}); g.resources["l"] != "1" {
			t.Errorf("content = %q, want the last good bytes", g.resources["l"])
		}
		w := httptest.NewRecorder()
		m.server.Syncz().ServeHTTP(w, httptest.NewRequest("GET", "/debug/syncz", nil))
		for _, want := range []string{`"name": "l"`, `"error": "no"`, `"shop/cart-1"`, `"withheld": true`} {
			if !strings.Contains(w.Body.String(), want) {
				t.Errorf("syncz lacks %s: %s", want, w.Body)
			}
		}
	})
}

func TestARejectionHoldsUpNoRemoval(t *testing.T) {
	// a is what the bad listener's last good bytes use, b what nothing uses.
	start1 := func(t *testing.T) (*mesh, *client) {
		m := start(t)
		m.source.set(cluster("a", "1", ""), cluster("b", "1", ""), listener("bad", "to a"), listener("good", "to b"))
		c := m.connect(cartNode, nil, nil)
		m.source.set(listener("bad", "to nothing"), listener("good", "to nothing"))
		c.nack(c.want(resource.Listener, []string{"bad", "good"}), "bad: no")
		c.nack(c.want(resource.Listener, []string{"bad"}), "bad: no")
		c.ack(c.want(resource.Listener, []string{"good"}))
		if g := c.want(resource.Listener, []string{"bad"}); g.resources["bad"] != "to a" {
			t.Errorf("content = %q, want what the proxy has", g.resources["bad"])
		} else {
			c.ack(g)
		}
		pass(time.Minute)
		c.ack(c.want(resource.Cluster, []string{}, "b"))
		pass(10 * time.Minute)
		c.quiet()
		return m, c
	}
	t.Run("what the rejected one still uses goes when it is replaced", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			m, c := start1(t)
			m.source.set(listener("bad", "mended"), listener("good", "to nothing"))
			c.ack(c.want(resource.Listener, []string{"bad"}))
			pass(time.Minute)
			c.want(resource.Cluster, []string{}, "a")
		})
	})
	t.Run("or when it is removed", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			m, c := start1(t)
			m.source.set(listener("good", "to nothing"))
			c.ack(c.want(resource.Listener, []string{}, "bad"))
			pass(time.Minute)
			c.want(resource.Cluster, []string{}, "a")
		})
	})
}

func TestARejectionAfterAReconnectKeepsClusters(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(cluster("a", "1", ""), listener("l", "1"))
		c := m.delta(cartNode)
		c.send(have(resource.Cluster, "a", "1"))
		c.ack(c.want(resource.Cluster, []string{"a"}))
		// It may have an older l that it does not speak of, as after a rejection.
		c.send(have(resource.Listener, "other", "1"))
		c.nack(c.want(resource.Listener, []string{"l"}, "other"), "no")
		c.ack(c.want(resource.Listener, []string{}, "other"))
		m.source.set(listener("l", "1"))
		pass(10 * time.Minute)
		c.quiet()
	})
}
