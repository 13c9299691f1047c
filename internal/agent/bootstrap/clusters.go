// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"fmt"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	commondnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/common/dns/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Names of static clusters; Istio's tools and configurations know them.
const (
	xdsCluster        = "xds-grpc"
	sdsCluster        = "sds-grpc"
	agentCluster      = "agent"
	prometheusCluster = "prometheus_stats"
)

const http2Options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

func clusters(p Params) ([]*clusterv3.Cluster, error) {
	xds, err := discoveryCluster(p)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", xdsCluster, err)
	}
	h2, err := http2(nil)
	if err != nil {
		return nil, err
	}
	out := []*clusterv3.Cluster{xds}
	for _, c := range []struct {
		name, address string
		options       map[string]*anypb.Any
	}{
		{name: sdsCluster, address: SDSSocket, options: h2},
		{name: agentCluster, address: p.Status},
		{name: prometheusCluster, address: p.Admin},
	} {
		a, err := address(c.address)
		if err != nil {
			return nil, fmt.Errorf("cluster %s: %w", c.name, err)
		}
		out = append(out, &clusterv3.Cluster{
			Name:                          c.name,
			ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
			ConnectTimeout:                durationpb.New(time.Second),
			LoadAssignment:                assignment(c.name, a),
			TypedExtensionProtocolOptions: c.options,
		})
	}
	return out, nil
}

// discoveryCluster reaches isthmusd with our certificate and accepts only the one
// name. Keepalive finds a peer that is gone; the limits of the cluster are not to
// hold back the one stream that configures us.
func discoveryCluster(p Params) (*clusterv3.Cluster, error) {
	host, port, err := split(p.Discovery)
	if err != nil {
		return nil, err
	}
	transport, err := discoveryTLS(p.ServerName)
	if err != nil {
		return nil, err
	}
	h2, err := http2(&corev3.KeepaliveSettings{
		Interval: durationpb.New(30 * time.Second),
		Timeout:  durationpb.New(10 * time.Second),
	})
	if err != nil {
		return nil, err
	}
	unlimited := &clusterv3.CircuitBreakers_Thresholds{
		MaxConnections: wrapperspb.UInt32(100000), MaxPendingRequests: wrapperspb.UInt32(100000), MaxRequests: wrapperspb.UInt32(100000),
	}
	high := &clusterv3.CircuitBreakers_Thresholds{
		Priority:       corev3.RoutingPriority_HIGH,
		MaxConnections: unlimited.MaxConnections, MaxPendingRequests: unlimited.MaxPendingRequests, MaxRequests: unlimited.MaxRequests,
	}
	c := &clusterv3.Cluster{
		Name:                          xdsCluster,
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:                durationpb.New(5 * time.Second),
		LoadAssignment:                assignment(xdsCluster, socket(host, port)),
		CircuitBreakers:               &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{unlimited, high}},
		TypedExtensionProtocolOptions: h2,
		TransportSocket: &corev3.TransportSocket{
			Name:       "envoy.transport_sockets.tls",
			ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: transport},
		},
	}
	if isIP(host) {
		return c, nil
	}
	// Every address of every answer is an endpoint, whatever its family.
	resolve, err := pack(&dnsv3.DnsCluster{
		DnsRefreshRate:  durationpb.New(30 * time.Second),
		RespectDnsTtl:   true,
		DnsLookupFamily: commondnsv3.DnsLookupFamily_ALL,
	})
	c.ClusterDiscoveryType = &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{
		Name: "envoy.cluster.dns", TypedConfig: resolve,
	}}
	return c, err
}

func discoveryTLS(serverName string) (*anypb.Any, error) {
	return pack(&tlsv3.UpstreamTlsContext{
		Sni: serverName,
		CommonTlsContext: &tlsv3.CommonTlsContext{
			AlpnProtocols:                  []string{"h2"},
			TlsParams:                      &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2},
			TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{secret("default")},
			ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext: &tlsv3.CertificateValidationContext{
					MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
						SanType: tlsv3.SubjectAltNameMatcher_DNS,
						Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: serverName}},
					}},
				},
				ValidationContextSdsSecretConfig: secret("ROOTCA"),
			}},
		},
	})
}

// secret is one that the agent serves; it is there before Envoy starts.
func secret(name string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: &corev3.ConfigSource{
		ResourceApiVersion:  corev3.ApiVersion_V3,
		InitialFetchTimeout: durationpb.New(0),
		ConfigSourceSpecifier: &corev3.ConfigSource_ApiConfigSource{ApiConfigSource: &corev3.ApiConfigSource{
			ApiType:                   corev3.ApiConfigSource_GRPC,
			TransportApiVersion:       corev3.ApiVersion_V3,
			SetNodeOnFirstMessageOnly: true,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
				ClusterName: sdsCluster,
			}}}},
		}},
	}}
}

func http2(keepalive *corev3.KeepaliveSettings) (map[string]*anypb.Any, error) {
	o, err := pack(&httpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
				ConnectionKeepalive: keepalive,
			}},
		}},
	})
	if err != nil {
		return nil, err
	}
	return map[string]*anypb.Any{http2Options: o}, nil
}

func assignment(name string, a *corev3.Address) *endpointv3.ClusterLoadAssignment {
	return &endpointv3.ClusterLoadAssignment{
		ClusterName: name,
		Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: a}},
		}}}},
	}
}
