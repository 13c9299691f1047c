// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"cmp"
	"maps"
	"slices"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// GatewayRoutes lists a gateway's route tables.
func GatewayRoutes(v *snapshot.View) []string {
	names := map[string]bool{}
	for _, s := range servers(v) {
		if n := s.routeName(); n != "" {
			names[n] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// GatewayRoute resolves one of them, or nil.
func GatewayRoute(v *snapshot.View, name string) *ir.RouteConfig {
	t := gatewayTable{s: newScope(v), hosts: map[string]*gatewayHost{}}
	for _, s := range servers(v) {
		if s.routeName() == name {
			t.add(s)
		}
	}
	if !t.used {
		return nil
	}
	return &ir.RouteConfig{Name: name, VirtualHosts: t.virtualHosts()}
}

// gatewayTable joins the servers of a table: VirtualServices with the same
// domain share a virtual host, in the order of their age.
type gatewayTable struct {
	s     *scope
	used  bool
	port  uint32
	hosts map[string]*gatewayHost
}

type gatewayHost struct {
	routes   []ir.Route
	redirect bool
}

func (t *gatewayTable) add(s server) {
	t.used, t.port = true, s.port
	redirect := s.isHTTP() && s.spec.GetTls().GetHttpsRedirect()
	if redirect {
		for _, h := range s.hosts() {
			if validDomain(h) {
				t.host(h).redirect = true
			}
		}
	}
	r := gatewayRouting(t.s, s)
	for _, b := range boundTo(t.s, s) {
		if len(b.vs.Spec.GetHttp()) == 0 {
			continue
		}
		routes := r.http(b.vs)
		for _, d := range slices.DeleteFunc(b.domains, func(d string) bool { return !validDomain(d) }) {
			h := t.host(d)
			h.routes = append(h.routes, routes...)
			h.redirect = h.redirect || redirect
		}
	}
}

func (t *gatewayTable) host(domain string) *gatewayHost {
	h, ok := t.hosts[domain]
	if !ok {
		h = &gatewayHost{}
		t.hosts[domain] = h
	}
	return h
}

func (t *gatewayTable) virtualHosts() []ir.VirtualHost {
	var out []ir.VirtualHost
	for _, d := range slices.Sorted(maps.Keys(t.hosts)) {
		h := t.hosts[d]
		// A route for everything must not hide a younger VirtualService's routes.
		slices.SortStableFunc(h.routes, func(a, b ir.Route) int { return cmp.Compare(everything(a), everything(b)) })
		out = append(out, ir.VirtualHost{
			Name: d + ":" + portString(t.port), Domains: []string{d}, Routes: h.routes, RequireTLS: h.redirect,
		})
	}
	if len(out) == 0 {
		// A table without hosts answers 404; an empty one would too, but tools expect a name.
		out = append(out, ir.VirtualHost{Name: "blackhole:" + portString(t.port), Domains: []string{"*"}})
	}
	return out
}

// everything is 1 for a route that takes all requests.
func everything(r ir.Route) int {
	m := r.Match
	catches := m.Path.Value == "" || (m.Path.Kind == ir.MatchPrefix && m.Path.Value == "/") ||
		(m.Path.Kind == ir.MatchRegex && (m.Path.Value == ".*" || m.Path.Value == "/.*"))
	if catches && len(m.Headers)+len(m.Query) == 0 {
		return 1
	}
	return 0
}
