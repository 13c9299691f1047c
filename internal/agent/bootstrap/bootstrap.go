// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package bootstrap writes what Envoy is started with. It is pure: Params in,
// JSON out. What Envoy needs to reach isthmusd is here and nothing more; all else
// comes by discovery:
//
//	node            who we are, as Istio's control plane wants it told
//	xds-grpc        isthmusd over TLS, keys by sds-grpc
//	sds-grpc        the agent's socket
//	prometheus_stats, agent   for the two static listeners (metrics, health)
//	ADS             delta protocol, listeners and clusters
//
// Paths are relative: the agent starts Envoy in the root that it uses itself.
package bootstrap

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	internalv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/bootstrap/internal_listener/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Role of the proxy, as in its node id.
type Role string

// The two roles.
const (
	Sidecar Role = "sidecar"
	Router  Role = "router"
)

// SDSSocket is where the agent serves secrets, below the root (wire contract, 1.6).
const SDSSocket = "./var/run/secrets/workload-spiffe-uds/socket"

// Params are everything that a bootstrap depends on.
type Params struct {
	Node Node
	// Discovery is isthmusd's address as host:port; ServerName the DNS name that
	// its certificate must have.
	Discovery, ServerName string
	// Admin is host:port, or the path of a unix socket.
	Admin string
	// Status is the agent's HTTP server, as host:port to dial.
	Status string
	// MetricsPort and HealthPort are those of the static listeners.
	MetricsPort, HealthPort uint16
	Stats                   Stats
	// Protocol of discovery; Delta unless given.
	Protocol Protocol
}

// Protocol is a form of discovery.
type Protocol string

// The forms: what has changed, or all that there is.
const (
	Delta           Protocol = "delta"
	StateOfTheWorld Protocol = "state of the world"
)

func (p Protocol) api() corev3.ApiConfigSource_ApiType {
	if p == StateOfTheWorld {
		return corev3.ApiConfigSource_GRPC
	}
	return corev3.ApiConfigSource_DELTA_GRPC
}

// Stats selects what Envoy counts, besides what the mesh itself needs.
type Stats struct {
	Prefixes, Suffixes, Regexps []string
}

// Build returns the bootstrap as JSON. The same Params give the same bootstrap.
func Build(p Params) ([]byte, error) {
	b, err := build(p)
	if err != nil {
		return nil, fmt.Errorf("build bootstrap: %w", err)
	}
	out, err := protojson.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("marshal bootstrap: %w", err)
	}
	return out, nil
}

func build(p Params) (*bootstrapv3.Bootstrap, error) {
	node, err := p.Node.proto()
	if err != nil {
		return nil, err
	}
	clusters, err := clusters(p)
	if err != nil {
		return nil, err
	}
	listeners, err := listeners(p)
	if err != nil {
		return nil, err
	}
	admin, err := address(p.Admin)
	if err != nil {
		return nil, fmt.Errorf("admin address: %w", err)
	}
	internal, err := anypb.New(&internalv3.InternalListener{BufferSizeKb: wrapperspb.UInt32(64)})
	if err != nil {
		return nil, err
	}
	overload, err := overloadManager()
	if err != nil {
		return nil, err
	}
	return &bootstrapv3.Bootstrap{
		Node:             node,
		Admin:            &bootstrapv3.Admin{Address: admin},
		StaticResources:  &bootstrapv3.Bootstrap_StaticResources{Clusters: clusters, Listeners: listeners},
		DynamicResources: dynamic(p.Protocol),
		LayeredRuntime:   runtime(),
		StatsConfig:      statsConfig(p.Stats),
		OverloadManager:  overload,
		ClusterManager:   &bootstrapv3.ClusterManager{EnableDeferredClusterCreation: true},
		DeferredStatOptions: &bootstrapv3.Bootstrap_DeferredStatOptions{
			EnableDeferredCreationStats: true,
		},
		BootstrapExtensions: []*corev3.TypedExtensionConfig{{Name: "envoy.bootstrap.internal_listener", TypedConfig: internal}},
	}, nil
}

// dynamic asks for listeners and clusters over one aggregated stream. Both
// are awaited for as long as it takes: half a configuration is none.
func dynamic(p Protocol) *bootstrapv3.Bootstrap_DynamicResources {
	ads := func() *corev3.ConfigSource {
		return &corev3.ConfigSource{
			ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
			ResourceApiVersion:    corev3.ApiVersion_V3,
			InitialFetchTimeout:   durationpb.New(0),
		}
	}
	return &bootstrapv3.Bootstrap_DynamicResources{
		LdsConfig: ads(),
		CdsConfig: ads(),
		AdsConfig: &corev3.ApiConfigSource{
			ApiType:                   p.api(),
			TransportApiVersion:       corev3.ApiVersion_V3,
			SetNodeOnFirstMessageOnly: true,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
				ClusterName: xdsCluster,
				RetryPolicy: &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{
					BaseInterval: durationpb.New(500 * time.Millisecond),
					MaxInterval:  durationpb.New(10 * time.Second),
				}},
			}}}},
		},
	}
}

// runtime holds Istio's settings (wire contract, 1.2).
func runtime() *bootstrapv3.LayeredRuntime {
	return &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
		Name: "static",
		LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{Fields: map[string]*structpb.Value{
			"re2.max_program_size.error_level":                               structpb.NewNumberValue(32768),
			"envoy.reloadable_features.http_reject_path_with_fragment":       structpb.NewBoolValue(false),
			"envoy.reloadable_features.coalesce_lb_rebuilds_on_batch_update": structpb.NewBoolValue(false),
		}}},
	}, {
		Name:           "admin",
		LayerSpecifier: &bootstrapv3.RuntimeLayer_AdminLayer_{AdminLayer: &bootstrapv3.RuntimeLayer_AdminLayer{}},
	}}}
}

func overloadManager() (*overloadv3.OverloadManager, error) {
	limit, err := anypb.New(&connectionsv3.DownstreamConnectionsConfig{MaxActiveDownstreamConnections: 2147483647})
	if err != nil {
		return nil, err
	}
	return &overloadv3.OverloadManager{ResourceMonitors: []*overloadv3.ResourceMonitor{{
		Name:       "envoy.resource_monitors.global_downstream_max_connections",
		ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: limit},
	}}}, nil
}

// statsConfig keeps what the mesh's own health, drain, policy and metrics need,
// and what was asked for.
func statsConfig(s Stats) *metricsv3.StatsConfig {
	list := &matcherv3.ListStringMatcher{}
	for _, v := range append([]string{
		"cluster_manager", "listener_manager", "server", "cluster.xds-grpc", "wasm", "reporter=", "component", "istio",
	}, s.Prefixes...) {
		list.Patterns = append(list.Patterns, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: v}})
	}
	for _, v := range append([]string{
		"rbac.allowed", "rbac.denied", "shadow_allowed", "shadow_denied", "downstream_cx_active",
	}, s.Suffixes...) {
		list.Patterns = append(list.Patterns, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: v}})
	}
	for _, v := range append([]string{`vhost\..*\.route\..*`}, s.Regexps...) {
		list.Patterns = append(list.Patterns, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: v}}})
	}
	return &metricsv3.StatsConfig{StatsMatcher: &metricsv3.StatsMatcher{StatsMatcher: &metricsv3.StatsMatcher_InclusionList{InclusionList: list}}}
}

// address reads host:port, or the path of a unix socket.
func address(s string) (*corev3.Address, error) {
	if s == "" {
		return nil, errors.New("empty")
	}
	if s[0] == '/' || s[0] == '.' {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: s}}}, nil
	}
	host, port, err := split(s)
	if err != nil {
		return nil, err
	}
	return socket(host, port), nil
}

func split(s string) (string, uint16, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port of %s: %w", s, err)
	}
	return host, uint16(n), nil
}

func socket(host string, port uint16) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       host,
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

func pack(m proto.Message) (*anypb.Any, error) {
	a, err := anypb.New(m)
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return a, nil
}
