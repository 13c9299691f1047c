// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"net"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/test/binaries"
)

// What Envoy does is written down in the server: these tests hold Envoy itself
// against it, so that a new version that does otherwise is noticed.

type deltaStream = discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer

// script is a control plane that does as it is told, stream by stream; streams
// beyond the last are left open without an answer.
type script struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	turns chan func(deltaStream) error
	done  chan error
}

func (s *script) DeltaAggregatedResources(g deltaStream) error {
	select {
	case turn := <-s.turns:
		err := turn(g)
		s.done <- err
		return status.Error(codes.Unavailable, "the script ends this stream")
	default:
		<-g.Context().Done()
		return g.Context().Err()
	}
}

// play runs an Envoy against the script and waits until every turn is over.
func play(t *testing.T, turns ...func(deltaStream) error) *lab {
	t.Helper()
	s := &script{turns: make(chan func(deltaStream) error, len(turns)), done: make(chan error, len(turns))}
	for _, turn := range turns {
		s.turns <- turn
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(g, s)
	go func() { _ = g.Serve(lis) }()
	t.Cleanup(g.Stop)
	l := &lab{t: t, addr: lis.Addr().String()}
	l.startEnvoy(binaries.Path(t, "envoy"), protocols["delta"])
	for n := range turns {
		select {
		case err := <-s.done:
			if err != nil {
				t.Fatalf("stream %d: %v", n, err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("stream %d is not over within a minute", n)
		}
	}
	return l
}

// ask is the next request for clusters.
func ask(g deltaStream) (*discovery.DeltaDiscoveryRequest, error) {
	for {
		r, err := g.Recv()
		if err != nil || r.GetTypeUrl() == resource.Cluster.URL() {
			return r, err
		}
	}
}

func fixedCluster(name string, change func(*clusterv3.Cluster)) *clusterv3.Cluster {
	c := &clusterv3.Cluster{Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}}
	if change != nil {
		change(c)
	}
	return c
}

func TestEnvoyListsNothingOfARejectedResponse(t *testing.T) {
	t.Parallel()
	unknown := func(c *clusterv3.Cluster) {
		c.TransportSocket = &core.TransportSocket{Name: "none", ConfigType: &core.TransportSocket_TypedConfig{TypedConfig: packed(t, &core.Node{})}}
	}
	respond := func(g deltaStream, nonce string, clusters ...*clusterv3.Cluster) error {
		res := &discovery.DeltaDiscoveryResponse{TypeUrl: resource.Cluster.URL(), Nonce: nonce}
		for _, c := range clusters {
			res.Resources = append(res.Resources, &discovery.Resource{Name: c.GetName(), Version: "1", Resource: packed(t, proto.Message(c))})
		}
		return g.Send(res)
	}
	var rejected, after *discovery.DeltaDiscoveryRequest
	l := play(t, func(g deltaStream) error {
		if _, err := ask(g); err != nil {
			return err
		}
		if err := respond(g, "1", fixedCluster("accepted", nil)); err != nil {
			return err
		}
		if _, err := ask(g); err != nil {
			return err
		}
		if err := respond(g, "2", fixedCluster("good", nil), fixedCluster("bad", unknown)); err != nil {
			return err
		}
		var err error
		rejected, err = ask(g)
		return err
	}, func(g deltaStream) error {
		var err error
		after, err = ask(g)
		return err
	})
	if rejected.GetErrorDetail() == nil || rejected.GetResponseNonce() != "2" {
		t.Errorf("not rejected: %v", rejected)
	}
	has := after.GetInitialResourceVersions()
	if _, ok := has["accepted"]; !ok || len(has) != 1 {
		t.Errorf("connecting anew, Envoy lists %v, want what it accepted alone", has)
	}
	l.eventually("the good cluster in use", func() bool { return strings.Contains(l.clusters(), "\ngood::observability_name") })
	if strings.Contains(l.clusters(), "\nbad::") {
		t.Error("the bad cluster is in use")
	}
}

func TestEnvoyOpensItsNextStreamOnTheSameConnection(t *testing.T) {
	t.Parallel()
	var from [2]string
	turn := func(n int) func(deltaStream) error {
		return func(g deltaStream) error {
			p, _ := peer.FromContext(g.Context())
			from[n] = p.Addr.String()
			_, err := ask(g)
			return err
		}
	}
	play(t, turn(0), turn(1))
	if from[0] != from[1] {
		t.Errorf("a stream from %s, the next from %s: then ending streams would do, and connections need no end", from[0], from[1])
	}
}
