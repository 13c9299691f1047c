// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"fmt"
	"net"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
)

// findRoute goes from the route table to the route; what it does not find stays nil.
func (x *run) findRoute(m *hcmv3.HttpConnectionManager) (chosen, error) {
	var at chosen
	switch s := m.GetRouteSpecifier().(type) {
	case *hcmv3.HttpConnectionManager_RouteConfig:
		at.table = s.RouteConfig
	case *hcmv3.HttpConnectionManager_Rds:
		name := s.Rds.GetRouteConfigName()
		if at.table = x.config.routes[name]; at.table == nil {
			x.say("there is no route configuration %q", name)
			return at, nil
		}
	default:
		return at, notModelled("routes by %T", m.GetRouteSpecifier())
	}
	x.out.RouteConfig = at.table.Name
	x.say("route configuration %q", at.table.Name)
	host, domain := findVirtualHost(at.table, x.req)
	if host == nil {
		x.say("no virtual host has a domain for %q", x.req.Authority)
		return at, nil
	}
	at.host, x.out.VirtualHost = host, host.Name
	x.say("virtual host %q by domain %q", host.Name, domain)
	return at, x.findInHost(&at)
}

func (x *run) findInHost(at *chosen) error {
	if at.host.GetMatcher() != nil {
		return notModelled("a virtual host with a matcher")
	}
	if x.mustUpgrade(at.host) {
		return nil
	}
	for i, r := range at.host.GetRoutes() {
		why, err := x.matchRoute(at.table, r)
		if err != nil {
			return fmt.Errorf("route %d %q: %w", i, r.Name, err)
		}
		if why == "" {
			at.route, x.out.Route = r, r.Name
			x.say("route %d %q matches", i, r.Name)
			return nil
		}
		x.say("route %d %q does not match: %s", i, r.Name, why)
	}
	return nil
}

// mustUpgrade tells whether the host wants TLS and this request came without.
func (x *run) mustUpgrade(h *routev3.VirtualHost) bool {
	return h.GetRequireTls() != routev3.VirtualHost_NONE && !x.secure
}

// findVirtualHost searches exact domains, then "*suffix" longest first, then
// "prefix*" longest first, then "*". It also returns the domain that matched.
func findVirtualHost(t *routev3.RouteConfiguration, r Request) (*routev3.VirtualHost, string) {
	host := r.Authority
	if t.GetVhostHeader() != "" {
		host = r.first(t.GetVhostHeader())
	}
	if t.GetIgnorePortInHostMatching() {
		host = withoutPort(host)
	}
	if host == "" {
		return nil, ""
	}
	host = strings.ToLower(host)
	best, found, by := -1, (*routev3.VirtualHost)(nil), ""
	for _, vh := range t.GetVirtualHosts() {
		for _, d := range vh.GetDomains() {
			if n := domainFit(strings.ToLower(d), host); n > best {
				best, found, by = n, vh, d
			}
		}
	}
	return found, by
}

// Ranks of the kinds of domain; the length of a wildcard decides within its kind.
const (
	rankAny    = 0
	rankPrefix = 1 << 20
	rankSuffix = 2 << 20
	rankExact  = 3 << 20
)

// domainFit is how well a domain fits the host, -1 for not at all. A star stands
// for at least one character.
func domainFit(domain, host string) int {
	if domain == host {
		return rankExact
	}
	if domain == "*" {
		return rankAny
	}
	if s, ok := strings.CutPrefix(domain, "*"); ok && strings.HasSuffix(host, s) && len(host) > len(s) {
		return rankSuffix + len(s)
	}
	if p, ok := strings.CutSuffix(domain, "*"); ok && strings.HasPrefix(host, p) && len(host) > len(p) {
		return rankPrefix + len(p)
	}
	return -1
}

// withoutPort cuts a port off, and leaves an IPv6 address alone that has none.
func withoutPort(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		if strings.Contains(h, ":") {
			return "[" + h + "]"
		}
		return h
	}
	return host
}

// matchRoute says why a route does not match, "" if it does. Its order is Envoy's
// where it matters: chance is asked last, so that it does not split needlessly.
func (x *run) matchRoute(t *routev3.RouteConfiguration, r *routev3.Route) (string, error) {
	m := r.GetMatch()
	path, query := splitQuery(x.req.Path)
	if t.GetIgnorePathParametersInPathMatching() {
		path, _, _ = strings.Cut(path, ";")
	}
	ok, err := x.matchPath(m, path)
	if err != nil || !ok {
		return "path", err
	}
	for _, h := range m.GetHeaders() {
		if ok, err := matchHeader(h, x.req); !ok || err != nil {
			return "header " + h.Name, err
		}
	}
	for _, q := range m.GetQueryParameters() {
		if ok, err := matchQuery(q, query); !ok || err != nil {
			return "query parameter " + q.Name, err
		}
	}
	if m.GetGrpc() != nil && !x.isGRPC() {
		return "it is no gRPC", nil
	}
	if tc := m.GetTlsContext(); tc != nil {
		if p := tc.GetPresented(); p != nil && p.GetValue() != (len(x.peer) > 0) {
			return "client certificate presented or not", nil
		}
		if v := tc.GetValidated(); v != nil && v.GetValue() != (len(x.peer) > 0) {
			return "client certificate validated or not", nil
		}
	}
	if len(m.GetDynamicMetadata())+len(m.GetFilterState()) > 0 {
		return "", notModelled("a route by metadata or filter state")
	}
	if f := m.GetRuntimeFraction(); f != nil && !x.fraction("route "+r.Name, f) {
		return "chance", nil
	}
	return "", nil
}

// fraction throws for a fraction by its default; runtime values are not known here.
func (x *run) fraction(what string, f *corev3.RuntimeFractionalPercent) bool {
	p := f.GetDefaultValue()
	if p == nil {
		p = &typev3.FractionalPercent{Numerator: 100}
	}
	return x.chance(what, p)
}

func (x *run) isGRPC() bool {
	v := x.req.first("content-type")
	return v == "application/grpc" || strings.HasPrefix(v, "application/grpc+")
}

func (x *run) matchPath(m *routev3.RouteMatch, path string) (bool, error) {
	wanted, got := func(s string) string { return s }, path
	if c := m.GetCaseSensitive(); c != nil && !c.GetValue() {
		wanted, got = strings.ToLower, strings.ToLower(path)
	}
	switch p := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		return strings.HasPrefix(got, wanted(p.Prefix)), nil
	case *routev3.RouteMatch_Path:
		return got == wanted(p.Path), nil
	case *routev3.RouteMatch_SafeRegex:
		return fullRegex(p.SafeRegex.GetRegex(), path)
	case *routev3.RouteMatch_PathSeparatedPrefix:
		rest, ok := strings.CutPrefix(got, wanted(p.PathSeparatedPrefix))
		return ok && (rest == "" || rest[0] == '/'), nil
	case *routev3.RouteMatch_ConnectMatcher_:
		return x.req.Method == "CONNECT", nil
	}
	return false, notModelled("path matcher %T", m.GetPathSpecifier())
}
