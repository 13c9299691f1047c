// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/test/binaries"
)

// What Envoy does is written down in the server: these tests hold Envoy itself
// against it, so that a new version that does otherwise is noticed.

// ads is a stream of either protocol, as far as a script needs it.
type ads interface {
	grpc.ServerStream
	// ask is the next request for clusters.
	ask() (asked, error)
	// respond sends clusters; in the state of the world they are all that there are.
	respond(nonce string, clusters ...*clusterv3.Cluster) error
}

// asked is a request for clusters.
type asked struct {
	nonce, refusal string
	// has is what Envoy claims to have: the names of resources, in the state of the
	// world the nonce of the last response that it accepted.
	has []string
}

type deltaADS struct {
	discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	t *testing.T
}

func (d deltaADS) ask() (asked, error) {
	for {
		r, err := d.Recv()
		if err != nil {
			return asked{}, err
		}
		if r.GetTypeUrl() == resource.Cluster.URL() {
			return asked{r.GetResponseNonce(), r.GetErrorDetail().GetMessage(), slices.Sorted(maps.Keys(r.GetInitialResourceVersions()))}, nil
		}
	}
}

func (d deltaADS) respond(nonce string, clusters ...*clusterv3.Cluster) error {
	res := &discovery.DeltaDiscoveryResponse{TypeUrl: resource.Cluster.URL(), Nonce: nonce}
	for _, c := range clusters {
		res.Resources = append(res.Resources, &discovery.Resource{Name: c.GetName(), Version: nonce, Resource: packed(d.t, c)})
	}
	return d.Send(res)
}

type worldADS struct {
	discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer
	t *testing.T
}

func (w worldADS) ask() (asked, error) {
	for {
		r, err := w.Recv()
		if err != nil {
			return asked{}, err
		}
		if r.GetTypeUrl() == resource.Cluster.URL() {
			return asked{r.GetResponseNonce(), r.GetErrorDetail().GetMessage(), []string{r.GetVersionInfo()}}, nil
		}
	}
}

func (w worldADS) respond(nonce string, clusters ...*clusterv3.Cluster) error {
	res := &discovery.DiscoveryResponse{TypeUrl: resource.Cluster.URL(), Nonce: nonce, VersionInfo: nonce}
	for _, c := range clusters {
		res.Resources = append(res.Resources, packed(w.t, c))
	}
	return w.Send(res)
}

// script is a control plane that does as it is told, stream by stream; streams
// beyond the last are left open without an answer.
type script struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	t     *testing.T
	turns chan func(ads) error
	done  chan error
}

func (s *script) DeltaAggregatedResources(g discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return s.next(deltaADS{g, s.t})
}

func (s *script) StreamAggregatedResources(g discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return s.next(worldADS{g, s.t})
}

func (s *script) next(g ads) error {
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
func play(t *testing.T, api string, turns ...func(ads) error) *lab {
	t.Helper()
	s := &script{t: t, turns: make(chan func(ads) error, len(turns)), done: make(chan error, len(turns))}
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
	l := &lab{t: t, addr: lis.Addr().String(), drain: 1}
	l.startEnvoy(binaries.Path(t, "envoy"), api)
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

func fixedCluster(name string, change func(*clusterv3.Cluster)) *clusterv3.Cluster {
	c := &clusterv3.Cluster{Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}}
	if change != nil {
		change(c)
	}
	return c
}

// TestEnvoyListsNothingOfARejectedResponse: connecting anew, Envoy says nothing of
// what it took of one, by name or by a version of all.
func TestEnvoyListsNothingOfARejectedResponse(t *testing.T) {
	has := map[string]string{"delta": "accepted", "state of the world": "1"}
	for name, api := range protocols {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rejectInPart(t, api, name == "delta", has[name])
		})
	}
}

func rejectInPart(t *testing.T, api string, delta bool, has string) {
	accepted := fixedCluster("accepted", nil)
	second := []*clusterv3.Cluster{fixedCluster("good", nil), fixedCluster("bad", func(c *clusterv3.Cluster) {
		c.TransportSocket = &core.TransportSocket{Name: "none", ConfigType: &core.TransportSocket_TypedConfig{TypedConfig: packed(t, &core.Node{})}}
	})}
	if !delta {
		second = append(second, accepted)
	}
	var rejected, after asked
	l := play(t, api, func(g ads) error {
		if _, err := g.ask(); err != nil {
			return err
		}
		if err := g.respond("1", accepted); err != nil {
			return err
		}
		if _, err := g.ask(); err != nil {
			return err
		}
		if err := g.respond("2", second...); err != nil {
			return err
		}
		var err error
		rejected, err = g.ask()
		return err
	}, func(g ads) error {
		var err error
		after, err = g.ask()
		return err
	})
	if rejected.refusal == "" || rejected.nonce != "2" {
		t.Errorf("not rejected: %+v", rejected)
	}
	if diff := cmp.Diff([]string{has}, after.has); diff != "" {
		t.Errorf("connecting anew, Envoy does not claim to have what it accepted alone (-want +got):\n%s", diff)
	}
	l.eventually("the good cluster in use", func() bool { return strings.Contains(l.clusters(), "\ngood::observability_name") })
	if strings.Contains(l.clusters(), "\nbad::") {
		t.Error("the bad cluster is in use")
	}
}

func TestEnvoyOpensItsNextStreamOnTheSameConnection(t *testing.T) {
	for name, api := range protocols {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var from [2]string
			turn := func(n int) func(ads) error {
				return func(g ads) error {
					p, _ := peer.FromContext(g.Context())
					from[n] = p.Addr.String()
					_, err := g.ask()
					return err
				}
			}
			play(t, api, turn(0), turn(1))
			if from[0] != from[1] {
				t.Errorf("a stream from %s, the next from %s: then ending streams would do, and connections need no end", from[0], from[1])
			}
		})
	}
}
