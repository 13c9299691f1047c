// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package envoys asks a real Envoy, without running it, whether it takes a
// configuration.
package envoys

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	internalv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/bootstrap/internal_listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/test/binaries"
)

// Resources are all that a proxy gets, by type and name.
type Resources map[resource.Type]map[string]proto.Message

// Accept has an Envoy look at what a proxy would get, and fails the test if it refuses
// any of it. It skips the test where there is no Envoy.
func Accept(t testing.TB, rs Resources) {
	t.Helper()
	binary := binaries.Path(t, "envoy")
	raw, err := protojson.Marshal(bootstrap(t, rs))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "bootstrap.json")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, "--mode", "validate", "-c", path, "-l", "warning").CombinedOutput()
	if err != nil {
		t.Errorf("Envoy refuses the configuration: %v\n%s", err, out)
	}
}

// bootstrap holds resources as static ones, with routes in their listeners: what
// is delivered later is otherwise not looked at by a validating Envoy.
func bootstrap(t testing.TB, rs Resources) *bootstrapv3.Bootstrap {
	t.Helper()
	static := &bootstrapv3.Bootstrap_StaticResources{
		Clusters: []*clusterv3.Cluster{staticCluster("xds-grpc"), staticCluster("sds-grpc")},
	}
	for _, name := range sorted(rs[resource.Cluster]) {
		static.Clusters = append(static.Clusters, rs[resource.Cluster][name].(*clusterv3.Cluster))
	}
	for _, name := range sorted(rs[resource.Endpoint]) {
		c := staticCluster("endpoints of " + name)
		c.LoadAssignment = proto.Clone(rs[resource.Endpoint][name]).(*endpointv3.ClusterLoadAssignment)
		c.LoadAssignment.ClusterName = c.Name
		static.Clusters = append(static.Clusters, c)
	}
	for _, name := range sorted(rs[resource.Listener]) {
		l := proto.Clone(rs[resource.Listener][name]).(*listenerv3.Listener)
		for _, chain := range append(slices.Clone(l.FilterChains), l.DefaultFilterChain) {
			inlineRoutes(t, chain, rs[resource.Route])
		}
		static.Listeners = append(static.Listeners, l)
	}
	for _, name := range sorted(rs[resource.Secret]) {
		static.Secrets = append(static.Secrets, rs[resource.Secret][name].(*tlsv3.Secret))
	}
	grpc := []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
		EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: "xds-grpc"},
	}}}
	return &bootstrapv3.Bootstrap{
		Node:            &corev3.Node{Id: "test", Cluster: "test"},
		StaticResources: static,
		BootstrapExtensions: []*corev3.TypedExtensionConfig{{
			Name: "envoy.bootstrap.internal_listener", TypedConfig: packed(t, &internalv3.InternalListener{}),
		}},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{AdsConfig: &corev3.ApiConfigSource{
			ApiType: corev3.ApiConfigSource_DELTA_GRPC, TransportApiVersion: corev3.ApiVersion_V3, GrpcServices: grpc,
		}},
	}
}

func packed(t testing.TB, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func sorted(m map[string]proto.Message) []string { return slices.Sorted(maps.Keys(m)) }

func staticCluster(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		LoadAssignment:       &endpointv3.ClusterLoadAssignment{ClusterName: name},
	}
}

func inlineRoutes(t testing.TB, chain *listenerv3.FilterChain, routes map[string]proto.Message) {
	t.Helper()
	for _, f := range chain.GetFilters() {
		m := &hcmv3.HttpConnectionManager{}
		if f.GetTypedConfig().UnmarshalTo(m) != nil || m.GetRds() == nil {
			continue
		}
		name := m.GetRds().GetRouteConfigName()
		r, ok := routes[name]
		if !ok {
			t.Errorf("a listener asks for routes %q, which there are not", name)
			continue
		}
		m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: r.(*routev3.RouteConfiguration)}
		f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: packed(t, m)}
	}
}
