// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	snidfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_dynamic_forward_proxy/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
)

// peerState is the key under which a chain keeps its peer's identity for
// internal listeners.
const peerState = "isthmus.peer"

// earlyData is what is held of a client that speaks before the handshake is known.
const earlyData = 64 << 10

func (p *packer) networkFilter(name string, m proto.Message) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: p.any(m)}}
}

func (p *packer) tcp(t *ir.TCP) *listenerv3.Filter {
	m := &tcpv3.TcpProxy{StatPrefix: t.StatPrefix, AccessLog: p.accessLogs(t.AccessLog)}
	if len(t.Clusters) == 1 {
		m.ClusterSpecifier = &tcpv3.TcpProxy_Cluster{Cluster: t.Clusters[0].Cluster}
	} else {
		w := &tcpv3.TcpProxy_WeightedCluster{}
		for _, c := range t.Clusters {
			w.Clusters = append(w.Clusters, &tcpv3.TcpProxy_WeightedCluster_ClusterWeight{Name: c.Cluster, Weight: c.Weight})
		}
		m.ClusterSpecifier = &tcpv3.TcpProxy_WeightedClusters{WeightedClusters: w}
	}
	switch {
	case t.IdleTimeout < 0:
		m.IdleTimeout = durationpb.New(0)
	case t.IdleTimeout > 0:
		m.IdleTimeout = durationpb.New(t.IdleTimeout)
	}
	if t.HashSource {
		m.HashPolicy = []*typev3.HashPolicy{{PolicySpecifier: &typev3.HashPolicy_SourceIp_{SourceIp: &typev3.HashPolicy_SourceIp{}}}}
	}
	if t.AwaitTLS {
		m.UpstreamConnectMode = tcpv3.UpstreamConnectMode_ON_DOWNSTREAM_TLS_HANDSHAKE
		m.MaxEarlyDataBytes = u32(earlyData)
	}
	return p.networkFilter("envoy.filters.network.tcp_proxy", m)
}

// keepPeer saves the client's identity once its certificate is known.
func (p *packer) keepPeer() *listenerv3.Filter {
	return p.networkFilter("envoy.filters.network.set_filter_state", &netstatev3.Config{
		OnDownstreamTlsHandshake: []*statev3.FilterStateValue{{
			Key:                &statev3.FilterStateValue_ObjectKey{ObjectKey: peerState},
			FactoryKey:         "envoy.string",
			SharedWithUpstream: statev3.FilterStateValue_TRANSITIVE,
			ReadOnly:           true,
			Value: &statev3.FilterStateValue_FormatString{FormatString: &corev3.SubstitutionFormatString{
				Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
					Specifier: &corev3.DataSource_InlineString{InlineString: "%DOWNSTREAM_PEER_URI_SAN%"},
				}},
			}},
		}},
	})
}

func (p *packer) callers(c *ir.Callers) *listenerv3.Filter {
	return p.networkFilter("envoy.filters.network.rbac", &netrbacv3.RBAC{StatPrefix: c.StatPrefix, Rules: callerRules(c)})
}

func callerRules(c *ir.Callers) *rbacv3.RBAC {
	var ids []*rbacv3.Principal
	for _, name := range c.Principals {
		ids = append(ids, principal(name, c))
	}
	perm := &rbacv3.Permission{Rule: &rbacv3.Permission_Any{Any: true}}
	if len(c.ServerNames) > 0 {
		perm = serverNames(c.ServerNames)
	}
	return &rbacv3.RBAC{Action: rbacv3.RBAC_ALLOW, Policies: map[string]*rbacv3.Policy{
		"callers": {Principals: ids, Permissions: []*rbacv3.Permission{perm}},
	}}
}

func principal(name string, c *ir.Callers) *rbacv3.Principal {
	m := stringMatcher(ir.StringMatch{Kind: ir.MatchExact, Value: name})
	if n := len(name); n > 0 && name[n-1] == '*' {
		m = stringMatcher(ir.StringMatch{Kind: ir.MatchPrefix, Value: name[:n-1]})
	}
	if c.FromState {
		return &rbacv3.Principal{Identifier: &rbacv3.Principal_FilterState{FilterState: &matcherv3.FilterStateMatcher{
			Key:     peerState,
			Matcher: &matcherv3.FilterStateMatcher_StringMatch{StringMatch: m},
		}}}
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Authenticated_{
		Authenticated: &rbacv3.Principal_Authenticated{PrincipalName: m},
	}}
}

// serverNames matches the requested name exactly, or below a leading "*.".
func serverNames(names []string) *rbacv3.Permission {
	var any []*rbacv3.Permission
	for _, n := range names {
		m := ir.StringMatch{Kind: ir.MatchExact, Value: n, IgnoreCase: true}
		if len(n) > 1 && n[0] == '*' {
			m.Kind, m.Value = ir.MatchSuffix, n[1:]
		}
		any = append(any, &rbacv3.Permission{Rule: &rbacv3.Permission_RequestedServerName{RequestedServerName: stringMatcher(m)}})
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_OrRules{OrRules: &rbacv3.Permission_Set{Rules: any}}}
}

func (p *packer) dynamicHost(d *ir.DynamicHost) *listenerv3.Filter {
	return p.networkFilter("envoy.filters.network.sni_dynamic_forward_proxy", &snidfpv3.FilterConfig{
		DnsCacheConfig: dnsCache(d.Cache),
		PortSpecifier:  &snidfpv3.FilterConfig_PortValue{PortValue: d.Port},
	})
}

// never is a timeout that does not expire.
const never = time.Duration(0)
