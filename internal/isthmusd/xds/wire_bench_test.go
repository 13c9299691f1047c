// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/xds"
)

// BenchmarkWire changes one of a thousand services' endpoints and waits until a
// thousand gRPC streams have got them; every stream acknowledges.
func BenchmarkWire(b *testing.B) {
	const streams, services = 1000, 1000
	src := &source{}
	body := strings.Repeat("b", 700)
	all := make([]*resource.Resource, 0, 2*services)
	names := make([]string, 0, services)
	for i := range services {
		name := fmt.Sprintf("outbound|80||service-%04d.shop.svc.cluster.local", i)
		names = append(names, name)
		all = append(all, cluster(name, body, name), endpoints(name, body))
	}
	src.set(all...)
	server := xds.New(xds.Options{Source: src, Identities: callers{authn.Caller{Method: authn.Anonymous}}})
	lis := bufconn.Listen(1 << 20)
	g := grpc.NewServer(xds.ServerOptions()...)
	server.Register(g)
	go func() { _ = g.Serve(lis) }()
	defer g.Stop()
	conn, err := grpc.NewClient("passthrough:///bufconn",
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return lis.Dial() }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	var arrived sync.WaitGroup
	for i := range streams {
		s, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		arrived.Add(2)
		go answer(s, &arrived)
		for _, r := range []*discovery.DeltaDiscoveryRequest{
			{Node: node(fmt.Sprintf("sidecar~10.0.0.7~p-%d.shop~x", i)), TypeUrl: resource.Cluster.URL()},
			{TypeUrl: resource.Endpoint.URL(), ResourceNamesSubscribe: names},
		} {
			if err := s.Send(r); err != nil {
				b.Fatal(err)
			}
		}
	}
	arrived.Wait()
	round := 0
	for b.Loop() {
		b.StopTimer()
		round++
		k := 2*(round%services) + 1
		all[k] = endpoints(all[k].Name, fmt.Sprintf("%s%d", body, round))
		arrived.Add(streams)
		b.StartTimer()
		src.set(all...)
		arrived.Wait()
	}
	// Both ends of the streams live in this process.
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/streams, "us/stream")
}

// answer acknowledges everything until the stream ends.
func answer(s discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient, arrived *sync.WaitGroup) {
	for {
		r, err := s.Recv()
		if err != nil {
			return
		}
		if s.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}) != nil {
			return
		}
		arrived.Done()
	}
}
