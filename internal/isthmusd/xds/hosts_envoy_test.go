// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// vhost sends all requests for its domains to a cluster.
func vhost(name, cluster string, domains ...string) *routev3.VirtualHost {
	return &routev3.VirtualHost{
		Name: name, Domains: domains,
		Routes: []*routev3.Route{{
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster}}},
		}},
	}
}

// apart is a table whose hosts come on their own; all others go to a cluster.
func apart(t *testing.T, name, cluster string) *resource.Resource {
	t.Helper()
	r := marshalled(t, resource.Route, name, &routev3.RouteConfiguration{
		Name: name, Vhds: &routev3.Vhds{ConfigSource: overADS}, ValidateClusters: wrapperspb.Bool(false),
		VirtualHosts: []*routev3.VirtualHost{vhost("others", cluster, "*")},
	})
	r.HostsApart = true
	return r
}

func hostOf(t *testing.T, table, host, cluster string, more ...string) *resource.Resource {
	t.Helper()
	name := table + "/" + host
	return marshalled(t, resource.VirtualHost, name, vhost(name, cluster, append([]string{host}, more...)...))
}

// listenerCalled is one more beside the lab's own.
func listenerCalled(t *testing.T, name, addr, table string) *resource.Resource {
	t.Helper()
	var m listenerv3.Listener
	if err := proto.Unmarshal(httpListener(t, addr, table, name).Body, &m); err != nil {
		t.Fatal(err)
	}
	m.Name = name
	return marshalled(t, resource.Listener, name, &m)
}

// asks expects that requests for a host at an address end at a backend.
func (l *lab) asks(addr, host, want string) {
	l.t.Helper()
	got := ""
	l.eventually(fmt.Sprintf("%s for %s at %s", want, host, addr), func() bool {
		r, err := http.NewRequest(http.MethodGet, "http://"+addr+"/", nil)
		if err != nil {
			l.t.Fatal(err)
		}
		r.Host = host
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return false
		}
		defer func() { _ = res.Body.Close() }()
		b, _ := io.ReadAll(res.Body)
		got = string(b)
		return got == want
	})
}

// hostsLab has three backends, each behind the cluster of its name.
func hostsLab(t *testing.T) (*lab, []*resource.Resource) {
	t.Helper()
	l := newLab(t, protocols["delta"])
	var base []*resource.Resource
	for _, n := range []string{"one", "two", "rest"} {
		base = append(base, edsCluster(t, n, "svc-"+n, time.Second), assignment(t, "svc-"+n, backend(t, n)))
	}
	return l, base
}

// TestRealEnvoyTakesHostsApart goes through what happens to virtual hosts that
// come on their own. Envoy waits an hour for what it needs, so whatever it is not
// sent at the right moment stays away.
func TestRealEnvoyTakesHostsApart(t *testing.T) {
	t.Parallel()
	l, base := hostsLab(t)
	second, third := freeAddr(t), freeAddr(t)
	set := func(rs ...*resource.Resource) {
		l.t.Helper()
		l.source.set(slices.Concat(base, []*resource.Resource{httpListener(t, l.entry, "v.80", "in"), apart(t, "v.80", "rest")}, rs)...)
	}
	set(hostOf(t, "v.80", "a", "one"), hostOf(t, "v.80", "b", "two"))
	l.asks(l.entry, "a", "one")
	l.asks(l.entry, "b", "two")
	l.asks(l.entry, "c", "rest")
	l.settled("the first hosts")
	stop := l.hammer()

	// Of later tables nothing is asked, and one without hosts must not wait for any.
	more := []*resource.Resource{
		listenerCalled(t, "second", second, "v.81"), apart(t, "v.81", "rest"),
		listenerCalled(t, "third", third, "v.82"), apart(t, "v.82", "two"),
	}
	with := func(rs ...*resource.Resource) { l.t.Helper(); set(append(slices.Clone(more), rs...)...) }
	with(hostOf(t, "v.80", "a", "one"), hostOf(t, "v.80", "b", "two"), hostOf(t, "v.81", "a", "two"))
	l.asks(second, "a", "two")
	l.asks(third, "a", "two")
	l.settled("more tables")

	// One changes, one goes, one comes to a table that had none.
	with(hostOf(t, "v.80", "a", "two"), hostOf(t, "v.81", "a", "two"), hostOf(t, "v.82", "a", "one"))
	l.asks(l.entry, "a", "two")
	l.asks(l.entry, "b", "rest")
	l.asks(third, "a", "one")
	l.asks(second, "a", "two")

	// A domain moves from one host to another.
	with(hostOf(t, "v.80", "a", "one", "short"), hostOf(t, "v.80", "b", "two"))
	l.asks(l.entry, "short", "one")
	with(hostOf(t, "v.80", "a", "one"), hostOf(t, "v.80", "b", "two", "short"))
	l.asks(l.entry, "short", "two")
	with(hostOf(t, "v.80", "a", "one", "short"), hostOf(t, "v.80", "b", "two"))
	l.asks(l.entry, "short", "one")

	// A table changes and keeps its hosts.
	more[1] = apart(t, "v.81", "one")
	with(hostOf(t, "v.80", "a", "one"), hostOf(t, "v.81", "a", "two"))
	l.asks(second, "x", "one")
	l.asks(second, "a", "two")
	l.settled("a changed table")

	// A table goes with its listener; when it is back it has its hosts again, and
	// not those of former days.
	with(hostOf(t, "v.80", "a", "one"), hostOf(t, "v.81", "a", "two"), hostOf(t, "v.81", "old", "two"))
	l.asks(second, "old", "two")
	set(hostOf(t, "v.80", "a", "one"))
	l.settled("a table gone")
	l.eventually("the listener gone", func() bool { _, err := http.Get("http://" + second + "/"); return err != nil })
	with(hostOf(t, "v.80", "a", "one"), hostOf(t, "v.81", "a", "two"))
	l.asks(second, "a", "two")
	l.asks(second, "old", "one")
	l.settled("the table again")

	// What changes while there is no control plane changes when there is one again.
	l.grpc.Stop()
	with(hostOf(t, "v.80", "b", "two"), hostOf(t, "v.81", "a", "one"), hostOf(t, "v.82", "a", "two"))
	l.serve(l.addr)
	l.asks(l.entry, "b", "two")
	l.asks(l.entry, "a", "rest")
	l.asks(second, "a", "one")
	l.settled("the reconnect")

	// Hosts go before their clusters.
	base = base[:0]
	for _, n := range []string{"one", "rest"} {
		base = append(base, edsCluster(t, n, "svc-"+n, time.Second), assignment(t, "svc-"+n, backend(t, n)))
	}
	more = more[:2]
	with()
	l.asks(l.entry, "b", "rest")
	l.settled("a host without its cluster")
	stop()

	// All tables go, and with them Envoy's interest in any host; then one is back.
	l.source.set(base...)
	l.eventually("no listener", func() bool { _, err := http.Get("http://" + l.entry + "/"); return err != nil })
	l.settled("no tables")
	set(hostOf(t, "v.80", "a", "one"))
	l.asks(l.entry, "a", "one")
	l.settled("a table after none")

	// And so it is when there was none at a reconnect.
	l.source.set(base...)
	l.eventually("no listener again", func() bool { _, err := http.Get("http://" + l.entry + "/"); return err != nil })
	l.settled("no tables again")
	l.grpc.Stop()
	l.serve(l.addr)
	l.settled("a reconnect without tables")
	set(hostOf(t, "v.80", "a", "one"), hostOf(t, "v.80", "b", "rest"))
	l.asks(l.entry, "a", "one")
	l.settled("a table after a reconnect without")
}

// TestRealEnvoyRejectsAHostApart: Envoy refuses all hosts of a response for one
// domain too many, of whatever table; the others still get there.
func TestRealEnvoyRejectsAHostApart(t *testing.T) {
	t.Parallel()
	l, base := hostsLab(t)
	second := freeAddr(t)
	base = append(base, httpListener(t, l.entry, "v.80", "in"), apart(t, "v.80", "rest"),
		listenerCalled(t, "second", second, "v.81"), apart(t, "v.81", "rest"))
	set := func(rs ...*resource.Resource) { l.t.Helper(); l.source.set(append(slices.Clone(base), rs...)...) }
	set(hostOf(t, "v.80", "a", "one"), hostOf(t, "v.81", "a", "one"))
	l.asks(second, "a", "one")
	l.settled("good hosts")
	stop := l.hammer()
	set(hostOf(t, "v.80", "a", "two"), hostOf(t, "v.80", "bad", "one", "a"), hostOf(t, "v.81", "a", "two"), hostOf(t, "v.81", "c", "one"))
	l.asks(l.entry, "a", "two")
	l.asks(second, "a", "two")
	l.asks(second, "c", "one")
	l.eventually("the bad host named", func() bool {
		st := l.server.Status()
		return len(st) == 1 && len(st[0].Types[resource.VirtualHost].Refused) == 1 && st[0].Types[resource.VirtualHost].Refused[0].Name == "v.80/bad"
	})
	// Domains that move beside a bad host: each can have its new one only after
	// another has given it up, and the order of their names is the wrong one.
	bad := hostOf(t, "v.80", "bad", "one", "a")
	set(hostOf(t, "v.80", "a", "two"), bad, hostOf(t, "v.80", "d", "one", "x"), hostOf(t, "v.80", "e", "one", "y"), hostOf(t, "v.80", "f", "one", "z"))
	l.asks(l.entry, "z", "one")
	set(hostOf(t, "v.80", "a", "two"), hostOf(t, "v.80", "bad", "two", "a"), hostOf(t, "v.80", "d", "two", "y"), hostOf(t, "v.80", "e", "two", "z"), hostOf(t, "v.80", "f", "two"))
	l.asks(l.entry, "y", "two")
	l.asks(l.entry, "z", "two")
	l.asks(l.entry, "x", "rest")
	set(hostOf(t, "v.80", "a", "two"), hostOf(t, "v.80", "bad", "one", "a"), hostOf(t, "v.80", "d", "one", "z"))
	l.asks(l.entry, "z", "one")
	l.asks(l.entry, "y", "rest")
	set(hostOf(t, "v.80", "a", "two"), hostOf(t, "v.80", "bad", "one"), hostOf(t, "v.81", "c", "one"))
	l.asks(l.entry, "bad", "one")
	l.asks(second, "a", "rest")
	l.settled("good hosts again")
	stop()
}
