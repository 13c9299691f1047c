// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	ondemandv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/on_demand/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// askingListener asks for clusters as the translator's listeners do.
func askingListener(t *testing.T, name, addr string, f *listenerv3.Filter) *resource.Resource {
	t.Helper()
	return marshalled(t, resource.Listener, name, &listenerv3.Listener{
		Name: name, Address: socket(addr), FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{f}}},
	})
}

func askingHTTP(t *testing.T, name, addr, table string) *resource.Resource {
	t.Helper()
	filter := func(name string, m proto.Message) *hcm.HttpFilter {
		return &hcm.HttpFilter{Name: name, ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: packed(t, m)}}
	}
	return askingListener(t, name, addr, &listenerv3.Filter{
		Name: "envoy.filters.network.http_connection_manager",
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(t, &hcm.HttpConnectionManager{
			StatPrefix:     name,
			RouteSpecifier: &hcm.HttpConnectionManager_Rds{Rds: &hcm.Rds{ConfigSource: overADS, RouteConfigName: table}},
			HttpFilters: []*hcm.HttpFilter{
				filter("envoy.filters.http.on_demand", &ondemandv3.OnDemand{Odcds: &ondemandv3.OnDemandCds{Source: overADS, Timeout: durationpb.New(time.Hour)}}),
				filter("envoy.filters.http.router", &routerv3.Router{}),
			},
		})},
	})
}

func askingTCP(t *testing.T, name, addr, cluster string) *resource.Resource {
	t.Helper()
	return askingListener(t, name, addr, &listenerv3.Filter{
		Name: "envoy.filters.network.tcp_proxy",
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(t, &tcpv3.TcpProxy{
			StatPrefix: name, ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: cluster},
			OnDemand: &tcpv3.TcpProxy_OnDemand{OdcdsConfig: overADS, Timeout: durationpb.New(time.Hour)},
		})},
	})
}

// once sends one request; nothing is tried again.
func (l *lab) once(addr, host, body string) (int, string) {
	l.t.Helper()
	r, err := http.NewRequest(http.MethodPost, "http://"+addr+"/", strings.NewReader(body))
	if err != nil {
		l.t.Fatal(err)
	}
	if body == "" {
		r.Method, r.Body = http.MethodGet, nil
	}
	r.Host = host
	// A connection of its own: no client tries it again because an old one has closed.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(r)
	if err != nil {
		l.t.Fatalf("request for %s: %v", host, err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// wantOnce expects that the first request for a host gets its answer.
func (l *lab) wantOnce(addr, host, body, want string) {
	l.t.Helper()
	if status, got := l.once(addr, host, body); status != http.StatusOK || got != want {
		l.t.Errorf("the first request for %s: %d %q, want %q", host, status, got, want)
	}
}

// holds tells whether Envoy has the cluster.
func (l *lab) holds(cluster string) bool {
	return strings.Contains(l.clusters(), "\n"+cluster+"::observability_name")
}

// TestRealEnvoyAsksForClusters goes through the life of clusters that are asked
// for. Envoy waits an hour for each answer: one that does not come is a test that
// does not end.
func TestRealEnvoyAsksForClusters(t *testing.T) {
	t.Parallel()
	l := &lab{t: t, entry: freeAddr(t), linger: 2 * time.Second, drain: 1, discovery: "OnDemand"}
	l.start(protocols["delta"])
	bytesEntry := freeAddr(t)
	backends := map[string]string{}
	for _, n := range []string{"one", "two", "three", "rest", "bytes"} {
		backends[n] = backend(t, n)
	}
	service := func(name string, timeout time.Duration) []*resource.Resource {
		c := edsCluster(t, name, "svc-"+name, timeout)
		c.OnDemand = name != "rest"
		return []*resource.Resource{c, assignment(t, "svc-"+name, backends[name])}
	}
	base := slices.Concat(service("rest", time.Second), []*resource.Resource{
		askingHTTP(t, "in", l.entry, "v.80"), apart(t, "v.80", "rest"), askingTCP(t, "bytes", bytesEntry, "bytes"),
	})
	set := func(rs ...[]*resource.Resource) {
		l.t.Helper()
		l.source.set(slices.Concat(append([][]*resource.Resource{base}, rs...)...)...)
	}
	host := func(name string, more ...string) []*resource.Resource {
		return []*resource.Resource{hostOf(t, "v.80", name, name, more...)}
	}
	set(service("one", time.Second), service("two", time.Second), service("bytes", time.Second), host("one"), host("two"), host("nowhere"))
	l.answers("rest")
	l.settled("the first configuration")
	for _, n := range []string{"one", "two", "bytes"} {
		if l.holds(n) {
			t.Errorf("Envoy has cluster %s unasked", n)
		}
	}
	stop := l.hammer()
	l.wantOnce(l.entry, "one", "", "one")
	if status, _ := l.once(l.entry, "nowhere", ""); status != http.StatusServiceUnavailable {
		t.Errorf("a cluster that does not exist: %d", status)
	}
	l.wantOnce(l.entry, "two", strings.Repeat("x", 100000), "two")
	l.wantOnce(bytesEntry, "whoever", "", "bytes")

	// A new service with its host, back to back.
	set(service("one", time.Second), service("two", time.Second), service("bytes", time.Second), service("three", time.Second),
		host("one"), host("two"), host("three"))
	l.asks(l.entry, "three", "three")

	// What was asked for changes with its endpoints.
	backends["one"] = backend(t, "other one")
	set(service("one", 2*time.Second), service("two", time.Second), service("bytes", time.Second), host("one"), host("two"))
	l.asks(l.entry, "one", "other one")
	l.eventually("cluster three gone", func() bool { return !l.holds("three") })

	// It is back, and nobody asks a second time: it comes by itself.
	set(service("one", 2*time.Second), service("two", time.Second), service("bytes", time.Second), service("three", time.Second),
		host("one"), host("two"), host("three"))
	l.eventually("cluster three again", func() bool { return l.holds("three") })
	l.settled("the service again")
	l.wantOnce(l.entry, "three", "", "three")

	// A replica that knows nothing. What changes meanwhile changes.
	l.grpc.Stop()
	backends["two"] = backend(t, "other two")
	set(service("one", 2*time.Second), service("two", 3*time.Second), service("bytes", time.Second), service("three", time.Second),
		host("one"), host("two"), host("three"))
	l.serve(l.addr)
	l.asks(l.entry, "two", "other two")
	l.settled("the reconnect")
	for _, n := range []string{"one", "two", "three", "bytes"} {
		if !l.holds(n) {
			t.Errorf("cluster %s is gone after the reconnect", n)
		}
	}
	// And what was asked for of the former one has gone from this one.
	set(service("two", 3*time.Second), host("two"), host("one", "uno"))
	l.eventually("cluster one gone", func() bool { return !l.holds("one") })
	l.settled("a service less")
	set(service("one", time.Second), service("two", 3*time.Second), host("two"), host("one", "uno"))
	l.asks(l.entry, "uno", "other one")
	stop()
}
