// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	codecv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/upstream_codec/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/rbac/matchers/upstream_ip_port/v3"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
)

// clusterFilters are a cluster's own, behind the choice of an endpoint and whatever
// route a request has come by; nil for a cluster that takes every request.
func (p *packer) clusterFilters(c ir.Cluster) []*hcmv3.HttpFilter {
	var out []*hcmv3.HttpFilter
	add := func(name string, m proto.Message) {
		out = append(out, p.httpFilter(name, m))
	}
	if c.Outside {
		add(rbacFilter, p.outsideOnly())
	}
	if len(c.Asked) > 0 {
		add(rbacFilter, askedOnly(c.Asked))
	}
	if len(out) > 0 {
		add("envoy.filters.http.upstream_codec", &codecv3.UpstreamCodec{})
	}
	return out
}

// outsideOnly lets a request go to no address that only the proxy's own machine or
// network can mean, whatever DNS has answered.
func (p *packer) outsideOnly() *httprbacv3.RBAC {
	deny := &rbacv3.Policy{Principals: anybody()}
	for _, r := range cidrs(ir.NeverOutside()) {
		deny.Permissions = append(deny.Permissions, &rbacv3.Permission{Rule: &rbacv3.Permission_Matcher{
			Matcher: &corev3.TypedExtensionConfig{
				Name:        "envoy.rbac.matchers.upstream_ip_port",
				TypedConfig: p.any(&upstreamv3.UpstreamIpPortMatcher{UpstreamIp: r}),
			},
		}})
	}
	return &httprbacv3.RBAC{Rules: &rbacv3.RBAC{Action: rbacv3.RBAC_DENY, Policies: map[string]*rbacv3.Policy{"inward": deny}}}
}

// askedOnly lets requests for these authorities pass, as they are after all rewriting.
func askedOnly(authorities []ir.StringMatch) *httprbacv3.RBAC {
	allow := &rbacv3.Policy{Principals: anybody()}
	for _, a := range authorities {
		allow.Permissions = append(allow.Permissions, &rbacv3.Permission{Rule: &rbacv3.Permission_Header{
			Header: headerMatcher(ir.NamedMatch{Name: ":authority", Match: a}),
		}})
	}
	return &httprbacv3.RBAC{Rules: &rbacv3.RBAC{Action: rbacv3.RBAC_ALLOW, Policies: map[string]*rbacv3.Policy{"asked": allow}}}
}

func anybody() []*rbacv3.Principal {
	return []*rbacv3.Principal{{Identifier: &rbacv3.Principal_Any{Any: true}}}
}
