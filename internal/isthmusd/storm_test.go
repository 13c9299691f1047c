// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package isthmusd

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

type deltaClient = discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient

// herd opens streams as n proxies of few kinds, over a handful of connections: the
// race detector knows no more than 8128 goroutines.
func herd(t *testing.T, d *Daemon, n int) []deltaClient {
	t.Helper()
	const perConnection = 50
	var out []deltaClient
	for len(out) < n {
		conn, err := grpc.NewClient(d.Addr("grpc").String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		for range min(perConnection, n-len(out)) {
			s, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, s)
		}
	}
	return out
}

// storming is the i-th proxy's node; every fourth one is of the same kind.
func storming(i int) *core.Node {
	return &core.Node{Id: fmt.Sprintf("sidecar~10.0.%d.%d~web-%d.n%d~n%d.svc.cluster.local", i/250, i%250, i, i%4, i%4)}
}

// counted is the sum of a metric over its labels.
func counted(t *testing.T, d *Daemon, name string) (sum float64) {
	t.Helper()
	families, err := prometheus.Gatherer(d.metrics).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

func allocated() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestAStormOfReconnects takes a replica away from two thousand proxies, which all
// come to one that has built nothing yet. Every one is admitted at its first try,
// what they need is built as often as for one of each kind, and they get nothing
// that they have.
func TestAStormOfReconnects(t *testing.T) {
	const proxies, kinds, perStream = 2000, 4, 64 << 10
	first, _ := start(t, nil)
	waitReady(t, first)
	var have [kinds]map[string]string
	for i, s := range herd(t, first, kinds) {
		send(t, s, &discovery.DeltaDiscoveryRequest{Node: storming(i), TypeUrl: resource.Cluster.URL()})
		r, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		have[i] = map[string]string{}
		for _, x := range r.GetResources() {
			have[i][x.GetName()] = x.GetVersion()
		}
	}

	second, _ := start(t, nil)
	waitReady(t, second)
	before := allocated()
	streams := herd(t, second, proxies)
	for i, s := range streams {
		send(t, s, &discovery.DeltaDiscoveryRequest{Node: storming(i), TypeUrl: resource.Cluster.URL(), InitialResourceVersions: have[i%kinds]})
		send(t, s, &discovery.DeltaDiscoveryRequest{TypeUrl: resource.Endpoint.URL(), ResourceNamesSubscribe: []string{"is not there"}})
	}
	for i, s := range streams {
		r, err := s.Recv()
		if err != nil {
			t.Fatalf("proxy %d of %d: %v", i, proxies, err)
		}
		if r.GetTypeUrl() != resource.Endpoint.URL() || len(r.GetResources()) != 0 || !slices.Equal(r.GetRemovedResources(), []string{"is not there"}) {
			t.Fatalf("proxy %d is sent what it has: %.300s", i, r)
		}
	}
	if grown := (allocated() - before) / proxies; grown > perStream {
		t.Errorf("a stream costs %d bytes with its client, want no more than %d", grown, perStream)
	}
	if n := counted(t, second, "isthmusd_xds_refused_total"); n != 0 {
		t.Errorf("%v streams were refused", n)
	}
	for _, name := range []string{"isthmusd_builds_total", "isthmusd_proxy_classes"} {
		if storm, calm := counted(t, second, name), counted(t, first, name); storm != calm || calm == 0 {
			t.Errorf("%s is %v for %d proxies, %v for one of each kind", name, storm, proxies, calm)
		}
	}
}
