// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ingest"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// TestOnDemandIsFullButForTheAsking: a proxy that asks for its clusters has what
// all others have, but for the filters that ask, for the time that a cluster waits
// for endpoints, and for the end of hosts.
func TestOnDemandIsFullButForTheAsking(t *testing.T) {
	t.Parallel()
	eachSidecar(t, func(t *testing.T, name string, snap *snapshot.Snapshot, p *model.Proxy) {
		full := *p
		full.HostsApart = true
		asking := full
		asking.OnDemand = true
		want, got := generateAll(t, snap, &full), generateAll(t, snap, &asking)
		for kind := range got {
			for name, m := range got[kind] {
				got[kind][name] = withoutAsking(t, m)
			}
			for name, m := range want[kind] {
				want[kind][name] = withoutWaiting(m)
			}
		}
		if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
			t.Errorf("(-full +on demand):\n%s", d)
		}
	})
}

// eachSidecar runs a test for each sidecar of the golden cases, by the case's name.
func eachSidecar(t *testing.T, test func(t *testing.T, name string, snap *snapshot.Snapshot, p *model.Proxy)) {
	t.Helper()
	for name, tc := range cases(t) {
		for proxy, p := range tc.proxies {
			if p.Type != "sidecar" {
				continue
			}
			t.Run(name+"/"+proxy, func(t *testing.T) {
				t.Parallel()
				test(t, name, tc.snap, p)
			})
		}
	}
}

func withoutWaiting(m proto.Message) proto.Message {
	c, ok := m.(*clusterv3.Cluster)
	if ok && c.GetEdsClusterConfig() != nil {
		c = proto.Clone(c).(*clusterv3.Cluster)
		c.EdsClusterConfig.EdsConfig.InitialFetchTimeout = nil
		return c
	}
	return m
}

// withoutAsking takes away what makes a proxy ask, and checks that it stands where
// it has to.
func withoutAsking(t *testing.T, m proto.Message) proto.Message {
	t.Helper()
	switch m := m.(type) {
	case *listenerv3.Listener:
		m = proto.Clone(m).(*listenerv3.Listener)
		for _, c := range append(m.GetFilterChains(), m.GetDefaultFilterChain()) {
			for _, f := range c.GetFilters() {
				f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: filterWithoutAsking(t, m.Name, f.GetTypedConfig())}
			}
		}
		return m
	case *routev3.VirtualHost:
		m = proto.Clone(m).(*routev3.VirtualHost)
		m.Routes = withoutEnd(t, m)
		return m
	case *routev3.RouteConfiguration:
		m = proto.Clone(m).(*routev3.RouteConfiguration)
		for _, h := range m.VirtualHosts {
			h.Routes = withoutEnd(t, h)
		}
		return m
	}
	return withoutWaiting(m)
}

func filterWithoutAsking(t *testing.T, listener string, a *anypb.Any) *anypb.Any {
	t.Helper()
	m, err := a.UnmarshalNew()
	if err != nil {
		t.Fatal(err)
	}
	switch m := m.(type) {
	case *hcmv3.HttpConnectionManager:
		asks := len(m.HttpFilters) > 0 && m.HttpFilters[0].Name == "envoy.filters.http.on_demand"
		if asks == (listener == "virtualInbound") {
			t.Errorf("listener %s: its first filter is %s", listener, m.HttpFilters[0].Name)
		}
		if asks {
			m.HttpFilters = m.HttpFilters[1:]
		}
	case *tcpv3.TcpProxy:
		names := []string{m.GetCluster()}
		for _, c := range m.GetWeightedClusters().GetClusters() {
			names = append(names, c.Name)
		}
		if asks := m.OnDemand != nil; asks != strings.HasPrefix(names[len(names)-1], "outbound|") {
			t.Errorf("listener %s: TCP to %v asks: %t", listener, names, asks)
		}
		m.OnDemand = nil
	default:
		return a
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &anypb.Any{TypeUrl: a.TypeUrl, Value: b}
}

// withoutEnd are a host's routes without the last one, if that is there for the
// sake of asking.
func withoutEnd(t *testing.T, h *routev3.VirtualHost) []*routev3.Route {
	t.Helper()
	last := h.Routes[len(h.Routes)-1]
	if m := last.Match; m.GetPrefix() != "/" || len(m.Headers)+len(m.QueryParameters) > 0 || m.RuntimeFraction != nil {
		t.Errorf("a request may find no route in %s, and would wait for ever", h.Name)
	}
	if last.Name == "no_route" {
		return h.Routes[:len(h.Routes)-1]
	}
	return h.Routes
}

// TestClustersThatCannotBeAskedFor are there from the start.
func TestClustersThatCannotBeAskedFor(t *testing.T) {
	t.Parallel()
	eachSidecar(t, func(t *testing.T, name string, snap *snapshot.Snapshot, p *model.Proxy) {
		asking := *p
		asking.HostsApart, asking.OnDemand = true, true
		view := snap.View(&asking, nil)
		for _, part := range []resource.Part{resource.Clusters, resource.OwnClusters} {
			names, err := New().Names(view, part)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range names {
				_, up, err := New().Build(view, part, n)
				if err != nil {
					t.Fatal(err)
				}
				if up.OnDemand != (strings.HasPrefix(n, "outbound|") && !namedInCase(name, n)) {
					t.Errorf("cluster %s waits to be asked for: %t", n, up.OnDemand)
				}
			}
		}
	})
}

// namedInCase tells whether one of the case's Sidecars names the host.
func namedInCase(name, cluster string) bool {
	return name == "sidecar-resource" && (strings.HasSuffix(cluster, "|api.other.svc.cluster.local") || strings.HasSuffix(cluster, "|db.other.svc.cluster.local"))
}

// TestEachHostHasAnEnd: what no route of a VirtualService matches is answered as
// Envoy does by itself.
func TestEachHostHasAnEnd(t *testing.T) {
	t.Parallel()
	snap, err := ingest.Load([]byte(`
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web, web.example.com, "*.example.com"]
  http: [{match: [{uri: {exact: /here}}], route: [{destination: {host: web}}]}]
`), topology.Config{})
	if err != nil {
		t.Fatal(err)
	}
	p := &model.Proxy{Type: "sidecar", Namespace: "shop", Delta: true, HostsApart: true, OnDemand: true}
	got := generateAll(t, snap, p)
	ends := 0
	count := func(h *routev3.VirtualHost) {
		if withoutEnd(t, h); h.Routes[len(h.Routes)-1].GetDirectResponse().GetStatus() == 404 {
			ends++
		}
	}
	for _, m := range got[resource.VirtualHost] {
		count(m.(*routev3.VirtualHost))
	}
	for _, m := range got[resource.Route] {
		for _, h := range m.(*routev3.RouteConfiguration).VirtualHosts {
			count(h)
		}
	}
	if ends != 3 {
		t.Errorf("%d hosts end with 404, want the VirtualService's three", ends)
	}
}
