// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

func TestRealEnvoy(t *testing.T) {
	for name, api := range protocols {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, api)
			one, two, three := backend(t, "one"), backend(t, "two"), backend(t, "three")
			in := httpListener(t, l.entry, "80", "in")
			a := edsCluster(t, "a", "svc-a", time.Second)
			l.source.set(a, assignment(t, "svc-a", one), in, routeTo(t, "80", "a"))
			l.answers("one")
			l.settled("the first configuration")
			stop := l.hammer()

			l.source.set(a, assignment(t, "svc-a", two), in, routeTo(t, "80", "a"))
			l.answers("two")

			// The cluster changes and its endpoints do not: it must not warm for ever.
			a = edsCluster(t, "a", "svc-a", 2*time.Second)
			l.source.set(a, assignment(t, "svc-a", two), in, routeTo(t, "80", "a"))
			l.settled("a changed cluster")

			// Another cluster of the same service takes over, another listener, another route.
			l.source.set(edsCluster(t, "b", "svc-a", time.Second), edsCluster(t, "c", "svc-c", time.Second),
				assignment(t, "svc-a", two), assignment(t, "svc-c", three),
				httpListener(t, l.entry, "81", "other"), routeTo(t, "81", "c"))
			l.answers("three")
			l.settled("the new clusters")
			l.eventually("cluster a gone", func() bool { return !strings.Contains(l.clusters(), "\na::observability_name") })

			// The service goes with its endpoints; draining connections still use both.
			l.source.set(edsCluster(t, "c", "svc-d", time.Second), assignment(t, "svc-d", three),
				httpListener(t, l.entry, "81", "again"), routeTo(t, "81", "c"))
			l.settled("a cluster with another service")
			l.source.set(edsCluster(t, "e", "svc-e", time.Second), assignment(t, "svc-e", two),
				httpListener(t, l.entry, "82", "last"), routeTo(t, "82", "e"))
			l.answers("two")
			l.settled("the last service")
			l.eventually("cluster c gone", func() bool { return !strings.Contains(l.clusters(), "\nc::observability_name") })

			// A new control plane: nothing changes, so nothing is disturbed; then it changes.
			l.grpc.Stop()
			l.serve(l.addr)
			l.settled("the reconnect")
			// Two clusters of one service, whose endpoints this replica has never sent.
			l.source.set(edsCluster(t, "e", "svc-e", 2*time.Second), edsCluster(t, "f", "svc-e", time.Second), assignment(t, "svc-e", two),
				httpListener(t, l.entry, "82", "last"), routeTo(t, "82", "e"))
			l.settled("a changed cluster after the reconnect")
			l.source.set(edsCluster(t, "e", "svc-e", 3*time.Second), assignment(t, "svc-e", one),
				httpListener(t, l.entry, "82", "last"), routeTo(t, "82", "e"))
			l.answers("one")
			l.settled("a change after the reconnect")
			stop()
		})
	}
}

// TestRealEnvoysFillInTheirEnvironment gives two of them the same bytes, in which a
// variable of the process stands for what differs from pod to pod.
func TestRealEnvoysFillInTheirEnvironment(t *testing.T) {
	for name, api := range protocols {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			route := marshalled(t, resource.Route, "80", &routev3.RouteConfiguration{
				Name: "80",
				VirtualHosts: []*routev3.VirtualHost{{
					Name: "all", Domains: []string{"*"},
					Routes: []*routev3.Route{{
						Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
						Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: http.StatusOK}},
						ResponseHeadersToAdd: []*core.HeaderValueOption{{
							Header: &core.HeaderValue{Key: "x-pod", Value: "%ENVIRONMENT(" + podVariable + ")%"},
						}},
					}},
				}},
			})
			for range 2 {
				l := newLab(t, api)
				l.source.set(httpListener(t, l.entry, "80", "in"), route)
				l.settled("the configuration")
				r, err := http.Get("http://" + l.entry + "/")
				if err != nil {
					t.Fatal(err)
				}
				_ = r.Body.Close()
				if got := r.Header.Get("x-pod"); got != l.entry {
					t.Errorf("x-pod is %q, want %q", got, l.entry)
				}
			}
		})
	}
}

// TestRealEnvoyRejects sends what Envoy refuses beside what it takes, and checks
// that the right one is blamed, for that is read from Envoy's message.
func TestRealEnvoyRejects(t *testing.T) {
	for name, api := range protocols {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reject(t, newLab(t, api))
		})
	}
}

func reject(t *testing.T, l *lab) {
	one := backend(t, "one")
	good := []*resource.Resource{
		edsCluster(t, "a", "svc-a", time.Second), assignment(t, "svc-a", one),
		httpListener(t, l.entry, "80", "in"), routeTo(t, "80", "a"),
	}
	l.source.set(good...)
	l.answers("one")
	l.settled("the good configuration")
	stop := l.hammer()
	unknown := &core.TransportSocket{Name: "none", ConfigType: &core.TransportSocket_TypedConfig{TypedConfig: packed(t, &core.Node{})}}
	tests := map[string]struct {
		typ  string
		name string
		bad  *resource.Resource
	}{
		"a cluster": {typ: "cds", name: "bad-cluster", bad: marshalled(t, resource.Cluster, "bad-cluster",
			&clusterv3.Cluster{Name: "bad-cluster", TransportSocket: unknown})},
		"a listener": {typ: "lds", name: "bad-listener", bad: marshalled(t, resource.Listener, "bad-listener", &listenerv3.Listener{
			Name: "bad-listener", Address: socket(freeAddr(t)), FilterChains: []*listenerv3.FilterChain{{TransportSocket: unknown}},
		})},
		// Why keys of the egress gateway have neither: they are SNI.
		"a cluster with a long SNI": {typ: "cds", name: "bad-sni", bad: marshalled(t, resource.Cluster, "bad-sni", &clusterv3.Cluster{
			Name: "bad-sni", ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
			TransportSocket: &core.TransportSocket{Name: "tls", ConfigType: &core.TransportSocket_TypedConfig{
				TypedConfig: packed(t, &tlsv3.UpstreamTlsContext{Sni: strings.Repeat("x", 256)}),
			}},
		})},
		"a server name with a star inside": {typ: "lds", name: "bad-name", bad: marshalled(t, resource.Listener, "bad-name", &listenerv3.Listener{
			Name: "bad-name", Address: socket(freeAddr(t)), FilterChains: []*listenerv3.FilterChain{{
				FilterChainMatch: &listenerv3.FilterChainMatch{ServerNames: []string{"outbound_.443_._.*.example.com"}},
			}},
		})},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			beside := edsCluster(t, "b", "svc-a", time.Second)
			l.source.set(append([]*resource.Resource{tc.bad, beside}, good...)...)
			l.eventually("rejection of "+tc.name+" alone", func() bool {
				st := l.server.Status()
				return len(st) == 1 && len(st[0].Types.ByName()[tc.typ].Refused) == 1
			})
			st := l.server.Status()[0].Types.ByName()[tc.typ]
			if len(st.Refused) != 1 || st.Refused[0].Name != tc.name {
				t.Errorf("refused = %v (%s), want %s alone", st.Refused, st.LastError, tc.name)
			}
			l.source.set(good...)
			l.settled("the good configuration again")
		})
	}
	stop()
}

// TestRealEnvoyGetsGoodRoutesBesideBadOnes changes two route tables at once, one
// of them to what Envoy rejects. Its message names neither, and it may not even
// look at the good one.
func TestRealEnvoyGetsGoodRoutesBesideBadOnes(t *testing.T) {
	for name, api := range protocols {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			goodBesideBad(t, newLab(t, api))
		})
	}
}

func goodBesideBad(t *testing.T, l *lab) {
	one, two := backend(t, "one"), backend(t, "two")
	rest := []*resource.Resource{
		edsCluster(t, "a", "svc-a", time.Second), assignment(t, "svc-a", one),
		edsCluster(t, "b", "svc-b", time.Second), assignment(t, "svc-b", two),
		httpListener(t, l.entry, "80", "in"),
	}
	names := []string{"79", "80", "81"} // Whichever Envoy looks at first, one is after a bad one.
	for _, n := range []string{"79", "81"} {
		other := httpListener(t, freeAddr(t), n, "in")
		var m listenerv3.Listener
		if err := proto.Unmarshal(other.Body, &m); err != nil {
			t.Fatal(err)
		}
		m.Name = "in-" + n
		rest = append(rest, marshalled(t, resource.Listener, m.GetName(), &m))
	}
	with := func(routes func(name string) *resource.Resource) {
		all := slices.Clone(rest)
		for _, n := range names {
			all = append(all, routes(n))
		}
		l.source.set(all...)
	}
	with(func(n string) *resource.Resource { return routeTo(t, n, "a") })
	l.answers("one")
	l.settled("the good configuration")
	stop := l.hammer()
	with(func(n string) *resource.Resource {
		if n == "80" {
			return routeTo(t, n, "b")
		}
		twice := &routev3.VirtualHost{Domains: []string{"same.example"}}
		first, second := proto.Clone(twice).(*routev3.VirtualHost), proto.Clone(twice).(*routev3.VirtualHost)
		first.Name, second.Name = "first", "second"
		return marshalled(t, resource.Route, n, &routev3.RouteConfiguration{Name: n, VirtualHosts: []*routev3.VirtualHost{first, second}})
	})
	l.answers("two")
	l.eventually("the two bad tables named", func() bool {
		st := l.server.Status()
		var bad []string
		for _, r := range st[0].Types.ByName()["rds"].Refused {
			bad = append(bad, r.Name)
		}
		return len(st) == 1 && slices.Equal(bad, []string{"79", "81"})
	})
	stop()
}
