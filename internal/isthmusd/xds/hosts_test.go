// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"slices"
	"strconv"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/xds"
)

func table(name, content string) *resource.Resource {
	r := route(name, content)
	r.HostsApart = true
	return r
}

func host(name, content string) *resource.Resource { return made(resource.VirtualHost, name, content) }

// withHosts brings a client to rest that has one table and its hosts.
func (m *mesh) withHosts(hosts ...string) *client {
	m.t.Helper()
	c := m.connect(cartNode, nil, nil)
	c.subscribe(resource.Route, "v.80")
	c.ack(c.want(resource.Route, []string{"v.80"}))
	c.quiet() // Envoy would drop hosts for which it has not asked.
	c.subscribe(resource.VirtualHost)
	c.ack(c.want(resource.VirtualHost, hosts, "v.80/none"))
	c.quiet()
	return c
}

func TestHostsFollowTheirTables(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		rs := []*resource.Resource{table("v.80", "1"), host("v.80/a", "1"), host("v.80/b", "1"), table("v.81", "1"), host("v.81/a", "1"), table("v.82", "1")}
		m.source.set(rs...)
		c := m.withHosts("v.80/a", "v.80/b")

		c.subscribe(resource.Route, "v.81")
		tables := c.want(resource.Route, []string{"v.81"})
		c.ack(c.want(resource.VirtualHost, []string{"v.81/a"}, "v.81/none"))
		c.ack(tables)
		c.subscribe(resource.Route, "v.82")
		c.ack(c.want(resource.Route, []string{"v.82"}))
		c.ack(c.want(resource.VirtualHost, []string{}, "v.82/none"))
		c.quiet()

		rs[1], rs[4] = host("v.80/a", "2"), host("v.81/b", "1")
		m.source.set(rs...)
		c.ack(c.want(resource.VirtualHost, []string{"v.80/a", "v.81/b"}, "v.81/a"))
		rs[0] = table("v.80", "2")
		m.source.set(rs...)
		c.ack(c.want(resource.Route, []string{"v.80"}))
		c.quiet() // It keeps its hosts.
	})
}

// TestATableThatIsNewAgainGetsItsHosts: what the client was sent before it threw
// away with the table.
func TestATableThatIsNewAgainGetsItsHosts(t *testing.T) {
	tests := map[string]func(c *client){
		"dropped and asked for": func(c *client) {
			c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: resource.Route.URL(), ResourceNamesUnsubscribe: []string{"v.80"}})
			c.quiet()
			c.subscribe(resource.Route, "v.80")
		},
		// As Envoy does when it drops and wants it between two requests.
		"asked for twice": func(c *client) { c.subscribe(resource.Route, "v.80") },
	}
	for name, ask := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				m := start(t)
				m.source.set(table("v.80", "1"), host("v.80/a", "1"))
				c := m.withHosts("v.80/a")
				ask(c)
				c.ack(c.want(resource.Route, []string{"v.80"}))
				c.ack(c.want(resource.VirtualHost, []string{"v.80/a"}, "v.80/none"))
				c.quiet()
			})
		})
	}
}

// TestARejectedTableGetsItsHostsLater: the client has dropped those that came
// after the table that it did not take.
func TestARejectedTableGetsItsHostsLater(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		rs := []*resource.Resource{table("v.80", "1"), host("v.80/a", "1"), table("v.81", "bad"), host("v.81/a", "1")}
		m.source.set(rs...)
		c := m.withHosts("v.80/a")
		c.subscribe(resource.Route, "v.81")
		bad := c.want(resource.Route, []string{"v.81"})
		c.ack(c.want(resource.VirtualHost, []string{"v.81/a"}, "v.81/none"))
		c.nack(bad, "no")
		c.quiet()
		rs[2] = table("v.81", "good")
		m.source.set(rs...)
		c.ack(c.want(resource.Route, []string{"v.81"}))
		c.ack(c.want(resource.VirtualHost, []string{"v.81/a"}, "v.81/none"))
		c.quiet()
	})
}

// TestHostsOfAReconnect: nothing goes that the client has, and what went away
// meanwhile is removed, in whatever order it asks.
func TestHostsOfAReconnect(t *testing.T) {
	for name, order := range map[string][]resource.Type{
		"tables first": {resource.Route, resource.VirtualHost},
		"hosts first":  {resource.VirtualHost, resource.Route},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				m := start(t)
				a, b := host("v.80/a", "1"), host("v.80/b", "1")
				m.source.set(table("v.80", "1"), a, b, table("v.81", "1"), host("v.81/a", "1"))
				c := m.withHosts("v.80/a", "v.80/b")
				c.subscribe(resource.Route, "v.81")
				c.ack(c.want(resource.Route, []string{"v.81"}))
				g := c.want(resource.VirtualHost, []string{"v.81/a"}, "v.81/none")
				c.ack(g)
				had := map[string]string{
					"v.80/a": version(a), "v.80/b": version(b), "v.81/a": g.versions["v.81/a"], "v.83/x": "1",
				}
				again := func(tables map[string]string) *client {
					c.cancel() // or else it might be the one that tries what is new
					_ = c.ended()
					c := m.connect(cartNode, nil, nil)
					for _, typ := range order {
						r := &discovery.DeltaDiscoveryRequest{TypeUrl: typ.URL(), InitialResourceVersions: tables}
						if typ == resource.VirtualHost {
							r.InitialResourceVersions = had
						}
						for n := range r.InitialResourceVersions {
							r.ResourceNamesSubscribe = append(r.ResourceNamesSubscribe, n)
						}
						slices.Sort(r.ResourceNamesSubscribe)
						c.send(r)
					}
					return c
				}
				tables := map[string]string{"v.80": version(table("v.80", "1")), "v.81": version(table("v.81", "1"))}
				c = again(tables)
				c.ack(c.want(resource.VirtualHost, []string{}, "v.83/x"))
				c.quiet()

				delete(had, "v.83/x")
				c = again(tables)
				c.quiet()

				m.source.set(table("v.80", "1"), host("v.80/a", "2"), table("v.81", "1"))
				c.ack(c.want(resource.VirtualHost, []string{"v.80/a"}, "v.80/b", "v.81/a"))
				c = again(tables)
				c.ack(c.want(resource.VirtualHost, []string{"v.80/a"}, "v.80/b", "v.81/a"))
				c.quiet()
			})
		})
	}
}

func version(r *resource.Resource) string { return strconv.FormatUint(r.Version, 16) }

// TestHostsComeAfterClustersAndGoBefore keeps requests from clusters that there
// are not.
func TestHostsComeAfterClustersAndGoBefore(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t, func(o *xds.Options) { o.Linger = time.Minute })
		m.source.set(table("v.80", "1"), host("v.80/a", "1"))
		c := m.withHosts("v.80/a")
		m.source.set(table("v.80", "1"), host("v.80/a", "1"), cluster("b", "1", ""), host("v.80/b", "to b"))
		g := c.want(resource.Cluster, []string{"b"})
		c.quiet()
		c.ack(g)
		c.ack(c.want(resource.VirtualHost, []string{"v.80/b"}))

		m.source.set(table("v.80", "1"), host("v.80/a", "1"))
		g = c.want(resource.VirtualHost, []string{}, "v.80/b")
		pass(5 * time.Minute)
		c.quiet() // Who has not taken the host away still uses the cluster.
		c.ack(g)
		c.quiet()
		pass(time.Minute)
		c.ack(c.want(resource.Cluster, []string{}, "b"))
	})
}

// TestHostsCount: a client that has a table is not done before it has its hosts.
func TestHostsCount(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(table("v.80", "1"), host("v.80/a", "1"))
		c := m.connect(cartNode, nil, []string{"v.80"})
		if st := m.server.Status()[0]; !st.Behind || st.Acknowledged.Epoch != "" {
			t.Errorf("without its hosts: %+v", st)
		}
		c.subscribe(resource.VirtualHost)
		c.ack(c.next())
		c.quiet()
		if st := m.server.Status()[0]; st.Behind || st.Acknowledged != st.Newest {
			t.Errorf("with its hosts: %+v", st)
		}
	})
}
