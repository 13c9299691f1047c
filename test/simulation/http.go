// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	commonfaultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	dfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_forward_proxy/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	ondemandv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/on_demand/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	httpstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// chosen is the route of a request with what it lies in; nil parts were not found.
type chosen struct {
	table *routev3.RouteConfiguration
	host  *routev3.VirtualHost
	route *routev3.Route
	share *routev3.WeightedCluster_ClusterWeight
}

// http is the connection manager: it finds the route, and the filters up to the
// router may end the request before that counts.
func (x *run) http(m *hcmv3.HttpConnectionManager) error {
	x.out.http, x.out.Logged = true, len(m.GetAccessLog()) > 0
	if x.bytesOnHTTP(m) {
		return nil
	}
	x.normalize(m)
	at, err := x.findRoute(m)
	if err != nil {
		return err
	}
	if x.upgradeRefused(m, at.route.GetRoute()) {
		return nil
	}
	for _, f := range m.GetHttpFilters() {
		if err := x.httpFilter(f, at); err != nil || x.out.Verdict != "" {
			return err
		}
	}
	x.end(Closed, "the connection manager has no router")
	return nil
}

func (x *run) normalize(m *hcmv3.HttpConnectionManager) {
	r := &x.req
	host, port, err := net.SplitHostPort(r.Authority)
	n, _ := strconv.Atoi(port)
	if err == nil && (m.GetStripAnyHostPort() || m.GetStripMatchingHostPort() && n == int(x.conn.destination.Port())) {
		r.Authority = host
	}
	if m.GetStripTrailingHostDot() {
		r.Authority = strings.TrimSuffix(r.Authority, ".")
	}
	path, rest := cutQuery(r.Path)
	if m.GetMergeSlashes() {
		for strings.Contains(path, "//") {
			path = strings.ReplaceAll(path, "//", "/")
		}
	}
	if m.GetNormalizePath().GetValue() {
		path = removeDots(strings.ReplaceAll(path, `\`, "/"))
	}
	if path+rest != r.Path {
		r.Path = path + rest
		x.say("path normalized to %s", r.Path)
	}
}

func cutQuery(path string) (string, string) {
	if i := strings.IndexAny(path, "?#"); i >= 0 {
		return path[:i], path[i:]
	}
	return path, ""
}

// removeDots resolves "." and ".." segments and keeps a last slash.
func removeDots(path string) string {
	var out []string
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, s := range segments {
		last := i == len(segments)-1
		switch s {
		case ".":
		case "..":
			out = out[:max(0, len(out)-1)]
		default:
			out = append(out, s)
			continue
		}
		if last {
			out = append(out, "")
		}
	}
	return "/" + strings.Join(out, "/")
}

// upgradeRefused answers for upgrades that nobody allows.
func (x *run) upgradeRefused(m *hcmv3.HttpConnectionManager, r *routev3.RouteAction) bool {
	up := strings.ToLower(x.req.Upgrade)
	if x.req.Method == http.MethodConnect {
		up = "connect"
	}
	if up == "" {
		return false
	}
	allowed := false
	for _, u := range m.GetUpgradeConfigs() {
		if strings.EqualFold(u.GetUpgradeType(), up) {
			allowed = u.GetEnabled() == nil || u.GetEnabled().GetValue()
		}
	}
	for _, u := range r.GetUpgradeConfigs() {
		if strings.EqualFold(u.GetUpgradeType(), up) {
			allowed = u.GetEnabled() == nil || u.GetEnabled().GetValue()
		}
	}
	if !allowed {
		x.answer(403, "upgrade to %s is not allowed", up)
	}
	return !allowed
}

// perRoute is a filter's configuration for the route: the narrowest one given.
func (c chosen) perRoute(name string) *anypb.Any {
	for _, m := range []map[string]*anypb.Any{
		c.share.GetTypedPerFilterConfig(), c.route.GetTypedPerFilterConfig(),
		c.host.GetTypedPerFilterConfig(), c.table.GetTypedPerFilterConfig(),
	} {
		if a := m[name]; a != nil {
			return a
		}
	}
	return nil
}

func (x *run) httpFilter(f *hcmv3.HttpFilter, at chosen) error {
	own := at.perRoute(f.Name)
	wrapped, is, err := unpack(own, &routev3.FilterConfig{})
	if err != nil {
		return err
	}
	off := f.GetDisabled()
	if is {
		off, own = wrapped.GetDisabled(), wrapped.GetConfig()
	} else if own != nil {
		off = false
	}
	if off {
		x.say("%s is off", f.Name)
		return nil
	}
	a := f.GetTypedConfig()
	if onlyWatches(a) {
		return nil
	}
	m, err := a.UnmarshalNew()
	if err != nil {
		return notModelled("HTTP filter %s (%s)", f.Name, a.GetTypeUrl())
	}
	switch m := m.(type) {
	case *httprbacv3.RBAC:
		return x.httpRBAC(m, own)
	case *faultv3.HTTPFault:
		return x.fault(m, own)
	case *corsv3.Cors:
		return x.cors(own)
	case *httpstatev3.Config:
		per, ok, err := unpack(own, &httpstatev3.Config{})
		if ok {
			m = per
		}
		if err != nil {
			return err
		}
		return x.keepState(m.GetOnRequestHeaders())
	case *ondemandv3.OnDemand:
		return nil // There is no cluster that it could get and that is not here.
	case *dfpv3.FilterConfig:
		x.dynamicHost()
		return nil
	case *routerv3.Router:
		return x.router(at)
	}
	return notModelled("HTTP filter %s", f.Name)
}

func (x *run) httpRBAC(m *httprbacv3.RBAC, own *anypb.Any) error {
	per, ok, err := unpack(own, &httprbacv3.RBACPerRoute{})
	if err != nil {
		return err
	}
	if ok {
		m = per.GetRbac()
	}
	if m.GetMatcher() != nil {
		return notModelled("RBAC with a matcher")
	}
	if m.GetRules() == nil {
		return nil
	}
	why, err := x.permitted(m.GetRules())
	if why != "" {
		x.answer(403, "RBAC: %s", why)
	} else if err == nil {
		x.say("RBAC lets it pass")
	}
	return err
}

// chance throws for a fraction and tells whether it hit.
func (x *run) chance(what string, p *typev3.FractionalPercent) bool {
	of := map[typev3.FractionalPercent_DenominatorType]uint64{
		typev3.FractionalPercent_HUNDRED: 100, typev3.FractionalPercent_TEN_THOUSAND: 10000, typev3.FractionalPercent_MILLION: 1000000,
	}[p.GetDenominator()]
	n := min(uint64(p.GetNumerator()), of)
	if n == 0 {
		return false
	}
	hit := x.dice.choose([]uint64{n, of - n}) == 0
	if n < of {
		x.say("%s by chance (%d of %d): %t", what, n, of, hit)
	}
	return hit
}

func (x *run) fault(m *faultv3.HTTPFault, own *anypb.Any) error {
	per, ok, err := unpack(own, &faultv3.HTTPFault{})
	if err != nil {
		return err
	}
	if ok {
		m = per
	}
	ok, err = allOf(m.GetHeaders(), func(h *routev3.HeaderMatcher) (bool, error) { return matchHeader(h, x.req) })
	if !ok || err != nil {
		return err
	}
	if d := m.GetDelay(); d != nil && x.chance("delay", d.GetPercentage()) {
		if _, fixed := d.GetFaultDelaySecifier().(*commonfaultv3.FaultDelay_FixedDelay); !fixed {
			return notModelled("a delay that a header sets")
		}
		x.out.Delay = d.GetFixedDelay().AsDuration()
		x.say("delayed by %s", x.out.Delay)
	}
	if a := m.GetAbort(); a != nil && x.chance("abort", a.GetPercentage()) {
		switch e := a.GetErrorType().(type) {
		case *faultv3.FaultAbort_HttpStatus:
			x.answer(int(e.HttpStatus), "fault")
		case *faultv3.FaultAbort_GrpcStatus:
			x.answer(200, "fault with gRPC status %d", e.GrpcStatus)
			x.out.GRPC = e.GrpcStatus
		default:
			return notModelled("abort %T", a.GetErrorType())
		}
	}
	return nil
}

// cors answers preflight requests of origins that the route knows.
func (x *run) cors(own *anypb.Any) error {
	p, ok, err := unpack(own, &corsv3.CorsPolicy{})
	if !ok || err != nil {
		return err
	}
	origin := x.req.first("origin")
	if x.req.Method != "OPTIONS" || origin == "" || x.req.first("access-control-request-method") == "" {
		return nil
	}
	for _, m := range p.GetAllowOriginStringMatch() {
		ok, err := matchString(m, origin)
		if err != nil {
			return err
		}
		if ok {
			x.answer(200, "CORS preflight")
			return nil
		}
	}
	if f := p.GetForwardNotMatchingPreflights(); f != nil && !f.GetValue() {
		x.answer(200, "CORS preflight of an unknown origin")
	}
	return nil
}

// dynamicHost takes the host from the request, for a dynamic forward proxy. A port
// that is not given depends on the cluster.
func (x *run) dynamicHost() {
	host, text, err := net.SplitHostPort(x.req.Authority)
	port, _ := strconv.ParseUint(text, 10, 16)
	if err != nil {
		host = x.req.Authority
	}
	x.dynamic = &Endpoint{Name: host, Port: uint16(port)}
}

// reached is the dynamic host's endpoint in a cluster: the port is that of the
// cluster's scheme unless the request names one.
func (e Endpoint) reached(secure bool) Endpoint {
	if e.Port == 0 {
		e.Port = 80
		if secure {
			e.Port = 443
		}
	}
	if ip, err := netip.ParseAddr(strings.Trim(e.Name, "[]")); err == nil {
		return Endpoint{Address: netip.AddrPortFrom(ip, e.Port)}
	}
	return e
}
