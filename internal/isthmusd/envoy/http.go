// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"strings"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	httpdfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_forward_proxy/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	headerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	ondemandv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/on_demand/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	httpstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
)

// Names of HTTP filters; per-route configuration goes by them.
const (
	corsFilter  = "envoy.filters.http.cors"
	faultFilter = "envoy.filters.http.fault"
	rbacFilter  = "envoy.filters.http.rbac"
	alpnFilter  = "envoy.filters.http.set_filter_state"

	onDemandFilter = "envoy.filters.http.on_demand"
)

// clusterTimeout bounds how long a request waits for a cluster that is asked for.
const clusterTimeout = 2 * time.Second

// alpnState overrides the protocols that a cluster offers in its handshake.
const alpnState = "envoy.network.application_protocols"

// serverName is what a gateway calls itself.
const serverName = "istio-envoy"

func (p *packer) http(h *ir.HTTP, d ir.Direction) *listenerv3.Filter {
	m := &hcmv3.HttpConnectionManager{
		StatPrefix:        h.StatPrefix,
		HttpFilters:       p.httpFilters(h),
		AccessLog:         p.accessLogs(h.AccessLog),
		NormalizePath:     yes(),
		UseRemoteAddress:  no(),
		StreamIdleTimeout: durationpb.New(never),
		UpgradeConfigs:    []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
	}
	if h.Tunnels {
		m.UpgradeConfigs = []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "CONNECT"}}
		m.Http2ProtocolOptions = &corev3.Http2ProtocolOptions{AllowConnect: true}
	}
	p.setRoutes(m, h)
	setEdge(m, h)
	return p.networkFilter("envoy.filters.network.http_connection_manager", m)
}

func (p *packer) setRoutes(m *hcmv3.HttpConnectionManager, h *ir.HTTP) {
	if h.Routes != nil {
		m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: p.routeConfig(*h.Routes)}
		return
	}
	m.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
		ConfigSource:    ads(0),
		RouteConfigName: h.RouteName,
	}}
}

// setEdge says what is believed of the client, and what it is told.
func setEdge(m *hcmv3.HttpConnectionManager, h *ir.HTTP) {
	m.ServerHeaderTransformation = hcmv3.HttpConnectionManager_PASS_THROUGH
	switch h.Edge {
	case ir.FromMesh:
		m.ForwardClientCertDetails = hcmv3.HttpConnectionManager_APPEND_FORWARD
		m.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{
			Subject: yes(), Dns: true, Uri: true,
		}
	case ir.FromOutside:
		m.UseRemoteAddress = yes()
		m.XffNumTrustedHops = h.Hops
		m.ServerName = serverName
		m.ServerHeaderTransformation = hcmv3.HttpConnectionManager_OVERWRITE
		m.ForwardClientCertDetails = hcmv3.HttpConnectionManager_SANITIZE_SET
		m.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{
			Subject: yes(), Cert: true, Dns: true, Uri: true,
		}
	case ir.FromSidecar:
		m.ForwardClientCertDetails = hcmv3.HttpConnectionManager_SANITIZE
		m.LocalReplyConfig = &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{
			failure(ir.FailedToConnect, "UF"), failure(ir.FailedByReset, "UC", "UR"),
		}}
	}
}

// failure marks answers of our own with what happened to the upstream.
func failure(value string, flags ...string) *hcmv3.ResponseMapper {
	return &hcmv3.ResponseMapper{
		Filter: &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{
			ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: flags},
		}},
		HeadersToAdd: []*corev3.HeaderValueOption{{
			Header:       &corev3.HeaderValue{Key: ir.FailureHeader, Value: value},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}},
	}
}

func (p *packer) httpFilter(name string, m proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: p.any(m)}}
}

func (p *packer) httpFilters(h *ir.HTTP) []*hcmv3.HttpFilter {
	var out []*hcmv3.HttpFilter
	add := func(name string, m proto.Message) {
		out = append(out, p.httpFilter(name, m))
	}
	if h.OnDemand {
		// First of all: filters before it would not see the route's configuration of the
		// request that waits for its cluster.
		add(onDemandFilter, &ondemandv3.OnDemand{Odcds: &ondemandv3.OnDemandCds{Source: ads(0), Timeout: durationpb.New(clusterTimeout)}})
	}
	if h.Edge == ir.FromSidecar {
		add("envoy.filters.http.header_mutation", meshHeaders())
	}
	if h.Callers != nil {
		add(rbacFilter, &httprbacv3.RBAC{Rules: callerRules(h.Callers)})
	} else if h.Edge == ir.FromApplication {
		add(rbacFilter, &httprbacv3.RBAC{}) // for the routes that limit what may be dialled
	}
	if h.Tunnels {
		add(alpnFilter, restoreTarget())
	}
	if h.DynamicHost != nil {
		add("envoy.filters.http.dynamic_forward_proxy", &httpdfpv3.FilterConfig{
			ImplementationSpecifier: &httpdfpv3.FilterConfig_DnsCacheConfig{DnsCacheConfig: dnsCache(*h.DynamicHost)},
		})
	}
	if len(h.UpstreamALPN) > 0 {
		add(alpnFilter, offerALPN(h.UpstreamALPN))
	}
	if h.Edge == ir.FromApplication || h.Edge == ir.FromOutside {
		add(faultFilter, &faultv3.HTTPFault{})
		add(corsFilter, &corsv3.Cors{})
	}
	add("envoy.filters.http.router", &routerv3.Router{SuppressEnvoyHeaders: h.Edge == ir.FromSidecar})
	return out
}

// meshHeaders removes what only proxies should see before a request leaves the mesh.
func meshHeaders() *headerv3.HeaderMutation {
	remove := func(m ir.StringMatch) *mutationv3.HeaderMutation {
		return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_RemoveOnMatch_{
			RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{KeyMatcher: stringMatcher(m)},
		}}
	}
	return &headerv3.HeaderMutation{Mutations: &headerv3.Mutations{RequestMutations: []*mutationv3.HeaderMutation{
		remove(ir.StringMatch{Kind: ir.MatchPrefix, Value: "x-envoy-"}),
		remove(ir.StringMatch{Kind: ir.MatchExact, Value: "x-forwarded-client-cert"}),
		remove(ir.StringMatch{Kind: ir.MatchPrefix, Value: "x-isthmus-"}),
	}}}
}

func offerALPN(protocols []string) *httpstatev3.Config {
	return &httpstatev3.Config{OnRequestHeaders: []*statev3.FilterStateValue{{
		Key:                &statev3.FilterStateValue_ObjectKey{ObjectKey: alpnState},
		SharedWithUpstream: statev3.FilterStateValue_ONCE,
		Value:              &statev3.FilterStateValue_FormatString{FormatString: text(strings.Join(protocols, ","))},
	}}}
}

// restoreTarget hands what a tunnel is for to the listener filter that restores
// original destinations.
func restoreTarget() *httpstatev3.Config {
	return &httpstatev3.Config{OnRequestHeaders: []*statev3.FilterStateValue{{
		Key:                &statev3.FilterStateValue_ObjectKey{ObjectKey: "envoy.filters.listener.original_dst.local_ip"},
		SharedWithUpstream: statev3.FilterStateValue_ONCE,
		Value:              &statev3.FilterStateValue_FormatString{FormatString: text("%REQ(:AUTHORITY)%")},
	}}}
}
