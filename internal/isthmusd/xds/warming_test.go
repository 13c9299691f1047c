// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secret "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// secrets is where a cluster gets its secret, when it may.
type secrets struct {
	secret.UnimplementedSecretDiscoveryServiceServer
	t       *testing.T
	release chan struct{}
}

// StreamSecrets answers nothing until released.
func (s *secrets) StreamSecrets(g secret.SecretDiscoveryService_StreamSecretsServer) error {
	r, err := g.Recv()
	if err != nil {
		return err
	}
	select {
	case <-s.release:
	case <-g.Context().Done():
		return g.Context().Err()
	}
	answer := packed(s.t, &tlsv3.Secret{Name: r.GetResourceNames()[0], Type: &tlsv3.Secret_ValidationContext{
		ValidationContext: &tlsv3.CertificateValidationContext{},
	}})
	if err := g.Send(&discovery.DiscoveryResponse{TypeUrl: r.GetTypeUrl(), VersionInfo: "1", Nonce: "1", Resources: []*anypb.Any{answer}}); err != nil {
		return err
	}
	<-g.Context().Done()
	return g.Context().Err()
}

// warming is a cluster that waits for its secret as long as it takes.
func warming(t *testing.T) *resource.Resource {
	t.Helper()
	from := &core.ConfigSource{
		ResourceApiVersion:  core.ApiVersion_V3,
		InitialFetchTimeout: durationpb.New(0),
		ConfigSourceSpecifier: &core.ConfigSource_ApiConfigSource{ApiConfigSource: &core.ApiConfigSource{
			ApiType: core.ApiConfigSource_GRPC, TransportApiVersion: core.ApiVersion_V3,
			GrpcServices: []*core.GrpcService{{TargetSpecifier: &core.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &core.GrpcService_EnvoyGrpc{ClusterName: "xds-grpc"},
			}}},
		}},
	}
	context := &tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		ValidationContextType: &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
			ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: "late", SdsConfig: from},
		},
	}}
	return marshalled(t, resource.Cluster, "warms", &clusterv3.Cluster{
		Name:                 "warms",
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		TransportSocket:      &core.TransportSocket{Name: "tls", ConfigType: &core.TransportSocket_TypedConfig{TypedConfig: packed(t, context)}},
	})
}

// TestRealEnvoyGoesOnWhileAClusterWarms gives Envoy a cluster whose secret does
// not come. Until it does Envoy acknowledges no clusters, and when it connects anew
// it does not even ask for them; nothing else may wait for that.
func TestRealEnvoyGoesOnWhileAClusterWarms(t *testing.T) {
	for name, api := range protocols {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			late := &secrets{t: t, release: make(chan struct{})}
			l := newLab(t, api, func(g *grpc.Server) { secret.RegisterSecretDiscoveryServiceServer(g, late) })
			one, two, three := backend(t, "one"), backend(t, "two"), backend(t, "three")
			a := edsCluster(t, "a", "svc-a", time.Second)
			l.source.set(a, assignment(t, "svc-a", one), httpListener(t, l.entry, "80", "in"), routeTo(t, "80", "a"))
			l.answers("one")
			l.settled("the first configuration")

			rest := []*resource.Resource{
				warming(t), edsCluster(t, "b", "svc-b", time.Second),
				httpListener(t, l.entry, "81", "again"), routeTo(t, "81", "b"),
			}
			l.source.set(append(rest, assignment(t, "svc-b", two))...)
			l.answers("two")
			if cds := l.stream().Types.ByName()["cds"]; !cds.Behind {
				t.Errorf("clusters are acknowledged while one warms: %+v", cds)
			}

			l.grpc.Stop()
			l.serve(l.addr)
			l.source.set(append(rest, assignment(t, "svc-b", three))...)
			l.answers("three")
			if cds := l.stream().Types.ByName()["cds"]; cds.Acknowledged.Revision != 0 {
				t.Errorf("Envoy asked for clusters while one warms: %+v", cds)
			}
			close(late.release)
			l.settled("everything, now that the secret came")
		})
	}
}

// TestRealEnvoyStartsWhileAClusterTurns changes a cluster of a starting Envoy from one
// whose endpoints the server tells to one that has its own, and another one back.
func TestRealEnvoyStartsWhileAClusterTurns(t *testing.T) {
	for name, api := range protocols {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			late := &secrets{t: t, release: make(chan struct{})}
			l := newLab(t, api, func(g *grpc.Server) { secret.RegisterSecretDiscoveryServiceServer(g, late) })
			one := backend(t, "one")
			rest := []*resource.Resource{
				warming(t), edsCluster(t, "a", "svc-a", time.Second), assignment(t, "svc-a", one),
				httpListener(t, l.entry, "80", "in"), routeTo(t, "80", "a"),
			}
			fixed := func(name string) *resource.Resource {
				return marshalled(t, resource.Cluster, name, &clusterv3.Cluster{
					Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
				})
			}
			l.source.set(append(rest, edsCluster(t, "turns", "svc-b", time.Second), assignment(t, "svc-b", one), fixed("returns"))...)
			l.eventually("clusters at Envoy", func() bool { return strings.Contains(l.dump(), `"turns"`) })
			l.source.set(append(rest, fixed("turns"), edsCluster(t, "returns", "svc-c", time.Second), assignment(t, "svc-c", one), fixed("new"))...)
			l.eventually("a new cluster at Envoy", func() bool { return strings.Contains(l.dump(), `"new"`) })
			close(late.release)
			l.answers("one")
			l.settled("everything")
			for name, want := range map[string]bool{"turns": false, "returns": true} {
				if got := strings.Contains(l.clusters(), "\n"+name+"::"+one); got != want {
					t.Errorf("%s has an endpoint: %v, want %v", name, got, want)
				}
			}
		})
	}
}

// TestRealEnvoyDoesNotWaitForWhatIsNot: a cluster whose service has no endpoints
// at all is ready as soon as Envoy is told that these do not exist. The state of the
// world has no word for that; there it helps that every cluster has endpoints, be it
// none: see generate.TestEveryClusterHasItsEndpoints.
func TestRealEnvoyDoesNotWaitForWhatIsNot(t *testing.T) {
	t.Parallel()
	l := newLab(t, protocols["delta"])
	in, to := httpListener(t, l.entry, "80", "in"), routeTo(t, "80", "a")
	a, one := edsCluster(t, "a", "svc-a", time.Second), assignment(t, "svc-a", backend(t, "one"))
	l.source.set(a, one, in, to, edsCluster(t, "first", "svc-none", time.Second))
	l.answers("one")
	l.settled("a first configuration")
	l.source.set(a, one, in, to, edsCluster(t, "later", "svc-none-either", time.Second))
	l.settled("a later one")
}
