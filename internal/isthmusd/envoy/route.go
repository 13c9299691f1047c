// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
)

// maxDirectBody is the longest body of a direct response, as in Istio.
const maxDirectBody = 1 << 20

// RouteConfig turns a table of routes into its message.
func RouteConfig(rc ir.RouteConfig) (*routev3.RouteConfiguration, error) {
	p := &packer{}
	m := p.routeConfig(rc)
	return m, p.done("route configuration", rc.Name)
}

// VirtualHost turns one virtual host, a piece of a table, into its message.
func VirtualHost(vh ir.VirtualHost) (*routev3.VirtualHost, error) {
	p := &packer{}
	m := p.virtualHost(vh)
	return m, p.done("virtual host", vh.Name)
}

func (p *packer) routeConfig(rc ir.RouteConfig) *routev3.RouteConfiguration {
	m := &routev3.RouteConfiguration{
		Name: rc.Name,
		// Clusters come and go on their own; a route to a missing one answers 503.
		ValidateClusters:               no(),
		IgnorePortInHostMatching:       true,
		MaxDirectResponseBodySizeBytes: u32(maxDirectBody),
	}
	if rc.HostsApart {
		m.Vhds = &routev3.Vhds{ConfigSource: adsForEver()}
	}
	for _, vh := range rc.VirtualHosts {
		m.VirtualHosts = append(m.VirtualHosts, p.virtualHost(vh))
	}
	return m
}

func (p *packer) virtualHost(vh ir.VirtualHost) *routev3.VirtualHost {
	m := &routev3.VirtualHost{
		Name:                       vh.Name,
		Domains:                    vh.Domains,
		IncludeRequestAttemptCount: !vh.NoAttemptCount,
	}
	if vh.RequireTLS {
		m.RequireTls = routev3.VirtualHost_ALL
	}
	for i := range vh.Routes {
		if r := p.sound(&vh.Routes[i]); r != nil {
			m.Routes = append(m.Routes, r)
		}
	}
	return m
}

// sound is a route that Envoy will take. A table is shared by all hosts of a
// port, and Envoy refuses it whole; so a route that it would refuse answers 500
// to what it matches, and one that cannot even match is left out.
func (p *packer) sound(r *ir.Route) *routev3.Route {
	if m := p.route(r); acceptable(m, r) {
		return m
	}
	refused := &ir.Route{Name: r.Name, Match: r.Match, Config: r.Config, Direct: &ir.Direct{Status: 500}}
	if m := p.route(refused); acceptable(m, refused) {
		return m
	}
	return nil
}

func (p *packer) route(r *ir.Route) *routev3.Route {
	m := &routev3.Route{Name: r.Name, Match: routeMatch(r.Match), Metadata: routeMetadata(r)}
	if r.Operation != "" {
		m.Decorator = &routev3.Decorator{Operation: r.Operation}
	}
	m.RequestHeadersToAdd, m.RequestHeadersToRemove = headerChange(r.Headers.Request)
	m.ResponseHeadersToAdd, m.ResponseHeadersToRemove = headerChange(r.Headers.Response)
	switch {
	case r.Forward != nil:
		forward := p.forward(r.Forward)
		if r.Match.Connect {
			forward.UpgradeConfigs = []*routev3.RouteAction_UpgradeConfig{{
				UpgradeType: "CONNECT", ConnectConfig: &routev3.RouteAction_UpgradeConfig_ConnectConfig{},
			}}
		}
		m.Action = &routev3.Route_Route{Route: forward}
	case r.Redirect != nil:
		m.Action = &routev3.Route_Redirect{Redirect: redirect(r.Redirect)}
	case r.Direct != nil:
		m.Action = &routev3.Route_DirectResponse{DirectResponse: direct(r.Direct)}
	default:
		p.fail("route %q does nothing", r.Name)
	}
	p.perRoute(m, r)
	return m
}

// message is one with rules about its own fields.
type message interface {
	proto.Message
	Validate() error
}

// perRoute attaches the filters' per-route configuration.
func (p *packer) perRoute(m *routev3.Route, r *ir.Route) {
	set := func(filter string, c message) {
		if c.Validate() != nil {
			m.Match = nil // which makes the route unacceptable
			return
		}
		if m.TypedPerFilterConfig == nil {
			m.TypedPerFilterConfig = map[string]*anypb.Any{}
		}
		m.TypedPerFilterConfig[filter] = p.any(c)
	}
	if r.Fault != nil {
		set(faultFilter, fault(r.Fault))
	}
	if r.CORS != nil {
		set(corsFilter, cors(r.CORS))
	}
	if r.Dialled != nil {
		set(rbacFilter, &httprbacv3.RBACPerRoute{Rbac: &httprbacv3.RBAC{Rules: dialledRules(r.Dialled)}})
	}
	if len(r.OfferALPN) > 0 {
		set(alpnFilter, offerALPN(r.OfferALPN))
	}
}

// dialledRules allow connections whose original destination is in the ranges.
func dialledRules(d *ir.Dialled) *rbacv3.RBAC {
	out := &rbacv3.RBAC{Action: rbacv3.RBAC_ALLOW}
	if len(d.Ranges) == 0 {
		return out
	}
	p := &rbacv3.Policy{Principals: []*rbacv3.Principal{{Identifier: &rbacv3.Principal_Any{Any: true}}}}
	for _, c := range cidrs(d.Ranges) {
		p.Permissions = append(p.Permissions, &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationIp{DestinationIp: c}})
	}
	out.Policies = map[string]*rbacv3.Policy{"dialled": p}
	return out
}

func routeMetadata(r *ir.Route) *corev3.Metadata {
	if r.Config == "" {
		return nil
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
		istioKey: fields(map[string]string{"config": r.Config}),
	}}
}

func (p *packer) forward(f *ir.Forward) *routev3.RouteAction {
	m := &routev3.RouteAction{
		Timeout:     durationpb.New(f.Timeout),
		RetryPolicy: p.retry(f.Retry),
	}
	if len(f.Clusters) == 1 && f.Clusters[0].Headers.Empty() && f.Clusters[0].Authority == "" {
		m.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: f.Clusters[0].Cluster}
	} else {
		m.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: weighted(f.Clusters)}
	}
	for _, mi := range f.Mirrors {
		m.RequestMirrorPolicies = append(m.RequestMirrorPolicies, &routev3.RouteAction_RequestMirrorPolicy{
			Cluster:         mi.Cluster,
			RuntimeFraction: &corev3.RuntimeFractionalPercent{DefaultValue: share(mi.PerMillion)},
			TraceSampled:    no(),
		})
	}
	for _, h := range f.Hash {
		m.HashPolicy = append(m.HashPolicy, hashPolicy(h))
	}
	setRewrite(m, f)
	return m
}

func weighted(cs []ir.WeightedCluster) *routev3.WeightedCluster {
	w := &routev3.WeightedCluster{}
	for _, c := range cs {
		out := &routev3.WeightedCluster_ClusterWeight{Name: c.Cluster, Weight: u32(c.Weight)}
		out.RequestHeadersToAdd, out.RequestHeadersToRemove = headerChange(c.Headers.Request)
		out.ResponseHeadersToAdd, out.ResponseHeadersToRemove = headerChange(c.Headers.Response)
		if host := c.Authority; host != "" {
			out.HostRewriteSpecifier = &routev3.WeightedCluster_ClusterWeight_HostRewriteLiteral{HostRewriteLiteral: host}
		}
		w.Clusters = append(w.Clusters, out)
	}
	return w
}

func setRewrite(m *routev3.RouteAction, f *ir.Forward) {
	if f.Rewrite.Authority != "" {
		m.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: f.Rewrite.Authority}
	}
	switch {
	case f.Rewrite.HasPrefix:
		m.PrefixRewrite = f.Rewrite.Prefix
	case f.Rewrite.Regex != "":
		m.RegexRewrite = regexRewrite(f.Rewrite.Regex, f.Rewrite.Substitution)
	}
}

func hashPolicy(h ir.HashPolicy) *routev3.RouteAction_HashPolicy {
	m := &routev3.RouteAction_HashPolicy{}
	switch {
	case h.Header != "":
		m.PolicySpecifier = &routev3.RouteAction_HashPolicy_Header_{Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: h.Header}}
	case h.Query != "":
		m.PolicySpecifier = &routev3.RouteAction_HashPolicy_QueryParameter_{
			QueryParameter: &routev3.RouteAction_HashPolicy_QueryParameter{Name: h.Query},
		}
	case h.Cookie != "":
		c := &routev3.RouteAction_HashPolicy_Cookie{Name: h.Cookie, Path: h.CookiePath}
		if h.CookieTTL != nil {
			c.Ttl = durationpb.New(*h.CookieTTL)
		}
		m.PolicySpecifier = &routev3.RouteAction_HashPolicy_Cookie_{Cookie: c}
	default:
		m.PolicySpecifier = &routev3.RouteAction_HashPolicy_ConnectionProperties_{
			ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true},
		}
	}
	return m
}

func headerChange(c ir.HeaderChange) ([]*corev3.HeaderValueOption, []string) {
	var out []*corev3.HeaderValueOption
	add := func(kv map[string]string, a corev3.HeaderValueOption_HeaderAppendAction) {
		for _, k := range slices.Sorted(maps.Keys(kv)) {
			out = append(out, &corev3.HeaderValueOption{
				Header: &corev3.HeaderValue{Key: k, Value: kv[k]}, AppendAction: a,
			})
		}
	}
	add(c.Add, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD)
	add(c.Set, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD)
	return out, c.Remove
}
