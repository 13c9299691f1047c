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

// outsideOnly are filters of a cluster, behind the choice of an endpoint: whatever
// DNS has answered, a request goes to no address that only the proxy's own machine
// or network can mean.
func (p *packer) outsideOnly() []*hcmv3.HttpFilter {
	deny := &rbacv3.Policy{Principals: []*rbacv3.Principal{{Identifier: &rbacv3.Principal_Any{Any: true}}}}
	for _, r := range cidrs(ir.NeverOutside()) {
		deny.Permissions = append(deny.Permissions, &rbacv3.Permission{Rule: &rbacv3.Permission_Matcher{
			Matcher: &corev3.TypedExtensionConfig{
				Name:        "envoy.rbac.matchers.upstream_ip_port",
				TypedConfig: p.any(&upstreamv3.UpstreamIpPortMatcher{UpstreamIp: r}),
			},
		}})
	}
	rules := &rbacv3.RBAC{Action: rbacv3.RBAC_DENY, Policies: map[string]*rbacv3.Policy{"inward": deny}}
	var out []*hcmv3.HttpFilter
	add := func(name string, m proto.Message) {
		out = append(out, &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: p.any(m)}})
	}
	add(rbacFilter, &httprbacv3.RBAC{Rules: rules})
	add("envoy.filters.http.upstream_codec", &codecv3.UpstreamCodec{})
	return out
}
