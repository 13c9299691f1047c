// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"cmp"
	"math"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	dfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	internalv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/internal_upstream/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
)

const (
	// endpointTimeout bounds the warming of a cluster whose endpoints never come.
	endpointTimeout = 5 * time.Second
	connectTimeout  = 10 * time.Second
	dnsRefresh      = 60 * time.Second

	httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
)

// Cluster turns a cluster into its message; the second result is the name of
// the assignment that it asks for, if any.
func Cluster(c ir.Cluster) (*clusterv3.Cluster, string, error) {
	p := &packer{}
	m := &clusterv3.Cluster{
		Name:           c.Name,
		ConnectTimeout: durationpb.New(connectTimeout),
		Metadata:       clusterMetadata(c),
	}
	p.setDiscovery(m, c)
	p.setTransport(m, c)
	p.setHTTP(m, c)
	p.setBalance(m, c.Balance)
	setPool(m, c.Pool)
	m.OutlierDetection = outlier(c.Outlier)
	m.UpstreamBindConfig = bindConfig(c.Sources)
	return m, c.Assignment, p.done("cluster", c.Name)
}

func (p *packer) setDiscovery(m *clusterv3.Cluster, c ir.Cluster) {
	kind := func(t clusterv3.Cluster_DiscoveryType) { m.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: t} }
	switch c.Discovery {
	case ir.EDS:
		kind(clusterv3.Cluster_EDS)
		m.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads(cmp.Or(c.EndpointWait, endpointTimeout))}
		if c.Assignment != c.Name {
			m.EdsClusterConfig.ServiceName = c.Assignment
		}
		return
	case ir.OriginalDst:
		kind(clusterv3.Cluster_ORIGINAL_DST)
		return
	case ir.Dynamic:
		m.ClusterDiscoveryType = &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{
			Name: "envoy.clusters.dynamic_forward_proxy",
			TypedConfig: p.any(&dfpv3.ClusterConfig{
				// Where no certificate is held against the host asked for, Envoy wants that said.
				AllowInsecureClusterOptions:    !verifiesHost(c.TLS),
				ClusterImplementationSpecifier: &dfpv3.ClusterConfig_DnsCacheConfig{DnsCacheConfig: dnsCache(c.Cache)},
			}),
		}}
		return
	case ir.StrictDNS:
		kind(clusterv3.Cluster_STRICT_DNS)
	case ir.LogicalDNS:
		kind(clusterv3.Cluster_LOGICAL_DNS)
	default:
		kind(clusterv3.Cluster_STATIC)
	}
	if c.Discovery != ir.Static {
		m.DnsLookupFamily = dnsFamily(c.Family)
		m.DnsRefreshRate = durationpb.New(dnsRefresh)
		m.RespectDnsTtl = true
		m.DnsJitter = durationpb.New(100 * time.Millisecond)
	}
	if len(c.Localities) > 0 {
		m.LoadAssignment = assignment(c.Name, c.Localities)
	}
}

func dnsFamily(f ir.IPFamily) clusterv3.Cluster_DnsLookupFamily {
	switch f {
	case ir.V6Only:
		return clusterv3.Cluster_V6_ONLY
	case ir.AllFamilies:
		return clusterv3.Cluster_ALL
	}
	return clusterv3.Cluster_V4_ONLY
}

// setTransport chooses the socket: none, TLS, TLS where the endpoint ends it,
// or a connection to an internal listener.
func (p *packer) setTransport(m *clusterv3.Cluster, c ir.Cluster) {
	switch {
	case c.Tunnelled:
		m.TransportSocket = &corev3.TransportSocket{
			Name: "envoy.transport_sockets.internal_upstream",
			ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: p.any(&internalv3.InternalUpstreamTransport{
				TransportSocket: &corev3.TransportSocket{
					Name:       rawSocket,
					ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: p.any(&rawbufferv3.RawBuffer{})},
				},
			})},
		}
	case c.TLS == nil:
	case c.Auto:
		m.TransportSocketMatches = []*clusterv3.Cluster_TransportSocketMatch{
			{
				Name:            "tlsMode-istio",
				Match:           &structpb.Struct{Fields: map[string]*structpb.Value{tlsMode: structpb.NewStringValue("istio")}},
				TransportSocket: p.clientTLS(c.TLS),
			},
			{Name: "tlsMode-disabled", Match: &structpb.Struct{}, TransportSocket: p.plaintext()},
		}
	default:
		m.TransportSocket = p.clientTLS(c.TLS)
	}
}

func (p *packer) setHTTP(m *clusterv3.Cluster, c ir.Cluster) {
	if c.Protocol == ir.Bytes {
		return
	}
	h1 := &corev3.Http1ProtocolOptions{}
	h2 := &corev3.Http2ProtocolOptions{MaxConcurrentStreams: optU32(c.Pool.ConcurrentStreams)}
	o := &httpv3.HttpProtocolOptions{CommonHttpProtocolOptions: commonHTTP(c.Pool)}
	explicit := &httpv3.HttpProtocolOptions_ExplicitHttpConfig{}
	switch c.Protocol {
	case ir.HTTP2:
		explicit.ProtocolConfig = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: h2}
	default:
		explicit.ProtocolConfig = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{HttpProtocolOptions: h1}
	}
	o.UpstreamProtocolOptions = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: explicit}
	if c.Protocol == ir.SameAsClient {
		o.UpstreamProtocolOptions = &httpv3.HttpProtocolOptions_UseDownstreamProtocolConfig{
			UseDownstreamProtocolConfig: &httpv3.HttpProtocolOptions_UseDownstreamHttpConfig{
				HttpProtocolOptions: h1, Http2ProtocolOptions: h2,
			},
		}
	}
	o.HttpFilters = p.clusterFilters(c)
	if c.TLS != nil && c.TLS.SNIFromHost {
		o.UpstreamHttpProtocolOptions = &corev3.UpstreamHttpProtocolOptions{AutoSni: true, AutoSanValidation: verifiesHost(c.TLS)}
	}
	m.TypedExtensionProtocolOptions = map[string]*anypb.Any{httpOptions: p.any(o)}
}

// verifiesHost tells whether the server's certificate must be for the host that
// each request names: not where names are given, for Envoy would ask for both,
// and not where verification is given up.
func verifiesHost(t *ir.ClientTLS) bool {
	return t != nil && t.SNIFromHost && t.Server != nil && !t.Server.SkipVerify && len(t.Server.SANs) == 0
}

func commonHTTP(pool ir.Pool) *corev3.HttpProtocolOptions {
	return &corev3.HttpProtocolOptions{
		IdleTimeout:              optDuration(pool.IdleTimeout),
		MaxConnectionDuration:    optDuration(pool.MaxConnectionDuration),
		MaxRequestsPerConnection: optU32(pool.RequestsPerConnection),
	}
}

func setPool(m *clusterv3.Cluster, pool ir.Pool) {
	limit := func(n uint32) uint32 {
		if n == 0 {
			return math.MaxUint32
		}
		return n
	}
	m.CircuitBreakers = &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections:     u32(limit(pool.MaxConnections)),
		MaxPendingRequests: u32(limit(pool.MaxPending)),
		MaxRequests:        u32(limit(pool.MaxRequests)),
		MaxRetries:         u32(limit(pool.MaxRetries)),
		TrackRemaining:     true,
	}}}
	if pool.ConnectTimeout > 0 {
		m.ConnectTimeout = durationpb.New(pool.ConnectTimeout)
	}
	if k := pool.Keepalive; k != nil {
		m.UpstreamConnectionOptions = &clusterv3.UpstreamConnectionOptions{TcpKeepalive: &corev3.TcpKeepalive{
			KeepaliveProbes:   optU32(k.Probes),
			KeepaliveTime:     optU32(uint32(k.Time / time.Second)),
			KeepaliveInterval: optU32(uint32(k.Interval / time.Second)),
		}}
	}
}

func bindConfig(sources []string) *corev3.BindConfig {
	if len(sources) == 0 {
		return nil
	}
	b := &corev3.BindConfig{SourceAddress: socketAddress(sources[0], 0).GetSocketAddress()}
	for _, s := range sources[1:] {
		b.ExtraSourceAddresses = append(b.ExtraSourceAddresses,
			&corev3.ExtraSourceAddress{Address: socketAddress(s, 0).GetSocketAddress()})
	}
	return b
}

func clusterMetadata(c ir.Cluster) *corev3.Metadata {
	if len(c.Services) == 0 && c.Config == "" {
		return nil
	}
	s := fields(map[string]string{"config": c.Config})
	if len(c.Services) > 0 {
		var list []*structpb.Value
		for _, r := range c.Services {
			list = append(list, structpb.NewStructValue(fields(map[string]string{
				"host": r.Host, "name": r.Name, "namespace": r.Namespace,
			})))
		}
		s.Fields["services"] = structpb.NewListValue(&structpb.ListValue{Values: list})
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{istioKey: s}}
}
