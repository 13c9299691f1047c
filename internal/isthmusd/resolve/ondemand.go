// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"slices"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// A proxy on demand has the clusters that it must have and those that it has asked
// for. It asks while a request waits, by the name that a chain or route leads to:
//
//   - Listeners and routes are as everywhere, but for the filter that asks.
//   - A cluster that warms holds up all others that Envoy would ask for, so it waits
//     for its endpoints no longer than need be.
//   - The filter asks for the route of a request that has none as well, and would
//     wait for ever: each virtual host has an end.

// onDemandWait bounds how long a cluster that was asked for waits for endpoints.
const onDemandWait = time.Second

// asking makes a listener's chains ask for clusters, where the proxy does.
func asking(v *snapshot.View, l *ir.Listener) *ir.Listener {
	if l == nil || !v.OnDemand() {
		return l
	}
	for i := range l.Chains {
		ask(&l.Chains[i])
	}
	if l.Default != nil {
		ask(l.Default)
	}
	return l
}

func ask(c *ir.Chain) {
	if c.HTTP != nil {
		c.HTTP.OnDemand = true
	}
	if c.TCP != nil {
		c.TCP.OnDemand = slices.ContainsFunc(c.TCP.Clusters, func(w ir.WeightedCluster) bool { return askedFor(w.Cluster) })
	}
}

// askedFor tells whether proxies on demand ask for a cluster of this name: for
// those of services. What Envoy cannot ask for, as what internal listeners lead to,
// goes by other names.
func askedFor(name string) bool {
	_, ok := parseOutbound(name)
	return ok
}

// onDemand says of a cluster whether it waits to be asked for. What a Sidecar names
// host by host the workload is known to call.
func onDemand(s *scope, c *ir.Cluster) *ir.Cluster {
	if c == nil || !s.v.OnDemand() {
		return c
	}
	c.EndpointWait = onDemandWait
	k, ok := parseOutbound(c.Name)
	c.OnDemand = ok && !s.expects(k)
	return c
}

// expects tells whether a Sidecar names the destination.
func (s *scope) expects(k subsetKey) bool {
	return slices.ContainsFunc(s.imports, func(r importRule) bool {
		if r.host != strings.ToLower(k.host) || r.port != 0 && r.port != k.port {
			return false
		}
		svc := s.service(k.host)
		return svc != nil && s.means(r, svc.Namespace)
	})
}

// ended gives a virtual host of a proxy on demand an answer for what matches none
// of its routes: the one that Envoy gives by itself.
func ended(v *snapshot.View, h *ir.VirtualHost) *ir.VirtualHost {
	if h == nil || slices.ContainsFunc(h.Routes, matchesAll) || !v.OnDemand() {
		return h
	}
	h.Routes = append(slices.Clip(h.Routes), ir.Route{Name: "no_route", Direct: &ir.Direct{Status: 404}})
	return h
}

func matchesAll(r ir.Route) bool {
	m := r.Match
	return !m.Connect && m.Path == ir.StringMatch{} && len(m.Headers)+len(m.Query) == 0
}

func endedTable(v *snapshot.View, t *ir.RouteConfig) *ir.RouteConfig {
	if t == nil {
		return nil
	}
	for i := range t.VirtualHosts {
		ended(v, &t.VirtualHosts[i])
	}
	return t
}
