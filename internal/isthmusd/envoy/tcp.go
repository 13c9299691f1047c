// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	snidfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_dynamic_forward_proxy/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
)

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
	if t.Tunnelled {
		m.TunnelingConfig = &tcpv3.TcpProxy_TunnelingConfig{Hostname: "%FILTER_STATE(" + ir.DialledState + ":PLAIN)%"}
	}
	if t.AwaitTLS {
		m.UpstreamConnectMode = tcpv3.UpstreamConnectMode_ON_DOWNSTREAM_TLS_HANDSHAKE
		m.MaxEarlyDataBytes = u32(earlyData)
	}
	if t.OnDemand {
		m.OnDemand = &tcpv3.TcpProxy_OnDemand{OdcdsConfig: ads(0), Timeout: durationpb.New(clusterTimeout)}
	}
	return p.networkFilter("envoy.filters.network.tcp_proxy", m)
}

// keepPeer saves the client's identity once its certificate is known.
func (p *packer) keepPeer() *listenerv3.Filter {
	return p.networkFilter("envoy.filters.network.set_filter_state", &netstatev3.Config{
		OnDownstreamTlsHandshake: []*statev3.FilterStateValue{kept(ir.PeerState, "%DOWNSTREAM_PEER_URI_SAN%")},
	})
}

// keepDialled saves where the client wanted to go.
func (p *packer) keepDialled() *listenerv3.Filter {
	return p.networkFilter("envoy.filters.network.set_filter_state", &netstatev3.Config{
		OnNewConnection: []*statev3.FilterStateValue{kept(ir.DialledState, "%DOWNSTREAM_LOCAL_ADDRESS%")},
	})
}

// kept is a value that the internal listeners behind see too.
func kept(key, format string) *statev3.FilterStateValue {
	return &statev3.FilterStateValue{
		Key:                &statev3.FilterStateValue_ObjectKey{ObjectKey: key},
		FactoryKey:         "envoy.string",
		SharedWithUpstream: statev3.FilterStateValue_TRANSITIVE,
		Value:              &statev3.FilterStateValue_FormatString{FormatString: text(format)},
	}
}

func text(format string) *corev3.SubstitutionFormatString {
	return &corev3.SubstitutionFormatString{
		Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
			Specifier: &corev3.DataSource_InlineString{InlineString: format},
		}},
	}
}

func (p *packer) callers(c *ir.Callers) *listenerv3.Filter {
	return p.networkFilter("envoy.filters.network.rbac", &netrbacv3.RBAC{StatPrefix: c.StatPrefix, Rules: callerRules(c)})
}

func callerRules(c *ir.Callers) *rbacv3.RBAC {
	var ids []*rbacv3.Principal
	for _, name := range c.Principals {
		ids = append(ids, principal(name))
	}
	return &rbacv3.RBAC{Action: rbacv3.RBAC_ALLOW, Policies: map[string]*rbacv3.Policy{
		"callers": {
			Principals:  ids,
			Permissions: []*rbacv3.Permission{{Rule: &rbacv3.Permission_Any{Any: true}}},
		},
	}}
}

func principal(name string) *rbacv3.Principal {
	m := ir.StringMatch{Kind: ir.MatchExact, Value: name}
	if prefix, ok := strings.CutSuffix(name, "*"); ok {
		m = ir.StringMatch{Kind: ir.MatchPrefix, Value: prefix}
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Authenticated_{
		Authenticated: &rbacv3.Principal_Authenticated{PrincipalName: stringMatcher(m)},
	}}
}

func (p *packer) dynamicHost(d *ir.DynamicHost) *listenerv3.Filter {
	return p.networkFilter("envoy.filters.network.sni_dynamic_forward_proxy", &snidfpv3.FilterConfig{
		DnsCacheConfig: dnsCache(d.Cache),
		PortSpecifier:  &snidfpv3.FilterConfig_PortValue{PortValue: d.Port},
	})
}

// never is a timeout that does not expire.
const never = time.Duration(0)
