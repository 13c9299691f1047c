// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	meshconfig "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// fakeBuilder translates enough to have shared, per-attribute and failing resources.
type fakeBuilder struct{}

func (fakeBuilder) Names(v *snapshot.View, p resource.Part) ([]string, error) {
	var out []string
	switch p {
	case resource.Clusters, resource.Endpoints:
		for _, s := range v.Services() {
			if s.Headless && v.ProxyNamespace() != s.Namespace {
				continue
			}
			out = append(out, s.Namespace+"/"+s.Host)
		}
	case resource.Tables:
		for _, s := range v.VirtualServices() {
			out = append(out, s.Key.String())
		}
	case resource.Hosts:
		for _, s := range v.ServicesSelecting(v.ProxyNamespace(), map[string]string{"app": v.ProxyLabel("app")}) {
			for _, vs := range v.VirtualServices() {
				out = append(out, vs.Key.String()+"/"+s.Host)
			}
		}
	}
	return out, nil
}

func (fakeBuilder) Compose(table *resource.Resource, hosts []*resource.Resource) []byte {
	out := slices.Clone(table.Body)
	for _, h := range hosts {
		out = protowire.AppendBytes(protowire.AppendTag(out, 2, protowire.BytesType), h.Body)
	}
	return out
}

func keyOf(name string) model.ServiceKey {
	ns, host, _ := strings.Cut(name, "/")
	return model.ServiceKey{Namespace: ns, Host: host}
}

func (fakeBuilder) Build(v *snapshot.View, p resource.Part, name string) (proto.Message, resource.Upstream, error) {
	k := keyOf(name)
	switch p {
	case resource.Clusters:
		sum := v.Summary(k)
		drs := v.DestinationRulesByHost(k.Host)
		alt := fmt.Sprint(sum.ServiceAccounts, len(drs))
		if len(drs) > 0 && v.ProxyMatches(drs[0].Spec.GetWorkloadSelector().GetMatchLabels()) {
			alt += drs[0].Name
		}
		return &cluster.Cluster{Name: name, AltStatName: alt}, resource.Upstream{ServiceName: name}, nil
	case resource.Endpoints:
		s, out := v.Service(k), &endpoint.ClusterLoadAssignment{ClusterName: name}
		for _, e := range v.Endpoints(k) {
			if s != nil && s.NodeLocal && e.Node != v.NodeName() {
				continue
			}
			out.Endpoints = append(out.Endpoints, &endpoint.LocalityLbEndpoints{Locality: &core.Locality{Zone: e.Address}})
		}
		return out, resource.Upstream{}, nil
	case resource.Hosts:
		return &route.VirtualHost{Name: name, Domains: []string{name}}, resource.Upstream{}, nil
	case resource.Tables:
		if strings.HasSuffix(name, "bad") {
			return nil, resource.Upstream{}, errors.New("bad")
		}
		return &route.RouteConfiguration{Name: name}, resource.Upstream{}, nil
	}
	return nil, resource.Upstream{}, nil
}

func newCatalog(s *snapshot.Store) *Catalog {
	c := New(Options{Builder: fakeBuilder{}})
	c.Update(s.Current(), nil)
	return c
}

func newStore() *snapshot.Store {
	return snapshot.NewStore(topology.Config{}, &meshconfig.MeshConfig{})
}

func service(ns, host string) *model.Service {
	return &model.Service{ServiceKey: model.ServiceKey{Namespace: ns, Host: host}, Object: model.Meta{Kind: model.KindService}}
}

func sidecar(ns, node string, labels map[string]string) *model.Proxy {
	return &model.Proxy{ID: "sidecar~" + ns + node, Type: "sidecar", Namespace: ns, Node: node, Labels: labels}
}

func state(t *testing.T, c *Catalog, p *model.Proxy) *resource.State {
	t.Helper()
	s, err := c.State(p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestNothingIsServedBeforeTheFirstUpdate(t *testing.T) {
	t.Parallel()
	c := New(Options{Builder: fakeBuilder{}})
	if _, err := c.State(sidecar("a", "n", nil)); !errors.Is(err, ErrNotReady) || c.Ready() {
		t.Errorf("ready %v, error %v", c.Ready(), err)
	}
}

func TestOnlyWhatChangedIsNew(t *testing.T) {
	t.Parallel()
	s := newStore()
	web, db := service("a", "web"), service("a", "db")
	s.Commit(func(x *snapshot.Txn) {
		x.PutService(web)
		x.PutService(db)
		x.PutEndpoints(db.ServiceKey, "1", []model.Endpoint{{Address: "1"}})
	})
	c := newCatalog(s)
	notify := make(chan struct{}, 1)
	defer c.Watch(notify)()
	before := state(t, c, sidecar("a", "n1", nil))
	if other := state(t, c, sidecar("a", "n2", nil)); other != before {
		t.Error("two proxies whose difference nobody asked for have two states")
	}
	built := c.Stats().Resources
	c.Update(s.Commit(func(x *snapshot.Txn) {
		x.PutEndpoints(db.ServiceKey, "1", []model.Endpoint{{Address: "2"}})
	}))
	after := state(t, c, sidecar("a", "n1", nil))
	if after == before || after.Sets[resource.Cluster] != before.Sets[resource.Cluster] {
		t.Error("an endpoint's change must make a new state with the same clusters")
	}
	if after.Sets[resource.Endpoint].Get("a/web") != before.Sets[resource.Endpoint].Get("a/web") {
		t.Error("the other service's endpoints were made anew")
	}
	select {
	case <-notify:
	default:
		t.Error("watchers were not told")
	}
	if now := c.Stats().Resources; now != built {
		t.Errorf("%d resources held, %d before", now, built)
	}
}

func TestProxiesPartWhenAnAttributeMatters(t *testing.T) {
	t.Parallel()
	s := newStore()
	web := service("a", "web")
	es := []model.Endpoint{{Address: "1", Node: "n1"}, {Address: "2", Node: "n2"}}
	s.Commit(func(x *snapshot.Txn) { x.PutService(web); x.PutEndpoints(web.ServiceKey, "1", es) })
	c := newCatalog(s)
	p1, p2 := sidecar("a", "n1", nil), sidecar("a", "n2", nil)
	if state(t, c, p1) != state(t, c, p2) {
		t.Fatal("the node matters already")
	}
	local := *web
	local.NodeLocal = true
	c.Update(s.Commit(func(x *snapshot.Txn) { x.PutService(&local) }))
	if state(t, c, p1) == state(t, c, p2) {
		t.Error("the node does not matter")
	}
	if state(t, c, p1).Sets[resource.Cluster] != state(t, c, p2).Sets[resource.Cluster] {
		t.Error("the clusters are not shared")
	}
	c.Update(s.Commit(func(x *snapshot.Txn) { x.PutService(web) }))
	if state(t, c, p1) != state(t, c, p2) || c.Stats().Classes != 1 {
		t.Errorf("the classes did not join again: %+v", c.Stats())
	}
}

func TestAFailureLeavesTheLastGoodResource(t *testing.T) {
	t.Parallel()
	s := newStore()
	c := New(Options{Builder: failing{}})
	s.Commit(func(x *snapshot.Txn) { x.PutService(service("a", "web")) })
	c.Update(s.Current(), nil)
	p := sidecar("a", "n", nil)
	before := state(t, c, p).Sets[resource.Cluster].Get("a/web")
	key := model.ServiceKey{Namespace: "a", Host: "web"}
	c.Update(s.Commit(func(x *snapshot.Txn) {
		x.PutEndpoints(key, "1", []model.Endpoint{{ServiceAccount: "x", Namespace: "a"}})
	}))
	if now := state(t, c, p).Sets[resource.Cluster].Get("a/web"); now == nil || now != before {
		t.Errorf("got %v", now)
	}
	if n := len(c.Stats().Problems); n != 1 {
		t.Errorf("%d problems", n)
	}
	c.Update(s.Commit(func(x *snapshot.Txn) { x.DeleteEndpoints(key, "1") }))
	if n := len(c.Stats().Problems); n != 0 {
		t.Errorf("%d problems after the repair", n)
	}
}

// failing panics for clusters of services with accounts, and makes an invalid
// message for endpoints.
type failing struct{ fakeBuilder }

func (f failing) Build(v *snapshot.View, p resource.Part, name string) (proto.Message, resource.Upstream, error) {
	if p == resource.Clusters && len(v.Summary(keyOf(name)).ServiceAccounts) > 0 {
		panic("cannot")
	}
	return f.fakeBuilder.Build(v, p, name)
}

func TestInvalidMessagesAreRefused(t *testing.T) {
	t.Parallel()
	bad, err := anypb.New(&router.Router{StrictCheckHeaders: []string{"nonsense"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]proto.Message{
		"a cluster without a name": &cluster.Cluster{},
		"a packed message": &cluster.Cluster{Name: "x", TransportSocket: &core.TransportSocket{
			Name: "x", ConfigType: &core.TransportSocket_TypedConfig{TypedConfig: bad},
		}},
		"a packed type that nobody knows": &cluster.Cluster{Name: "x", TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"x": {TypeUrl: "type.googleapis.com/no.Such"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := New(Options{Builder: fakeBuilder{}})
			if _, err := c.seal(item{resource.Clusters, "x"}, m, resource.Upstream{}); err == nil {
				t.Error("passed")
			}
		})
	}
}

func TestIdleClassesGo(t *testing.T) {
	t.Parallel()
	now := time.Unix(0, 0)
	s := newStore()
	s.Commit(func(x *snapshot.Txn) { x.PutService(service("a", "web")) })
	c := New(Options{Builder: fakeBuilder{}, Now: func() time.Time { return now }})
	c.Update(s.Current(), nil)
	gone := sidecar("b", "n", nil)
	stays := sidecar("a", "n", nil)
	s.Commit(func(x *snapshot.Txn) { h := service("a", "h"); h.Headless = true; x.PutService(h) })
	c.Update(s.Current(), nil)
	state(t, c, gone)
	for i := range 20 {
		now = now.Add(time.Minute)
		state(t, c, stays)
		c.Update(s.Commit(func(x *snapshot.Txn) { x.PutService(service("a", fmt.Sprint(i))) }))
	}
	if n := c.Stats().Classes; n != 1 {
		t.Errorf("%d classes", n)
	}
}

func randomEvent(r *rand.Rand) func(*snapshot.Txn) {
	ns, n := string(rune('a'+r.IntN(2))), r.IntN(4)
	host := fmt.Sprintf("s%d", r.IntN(3))
	s := service(ns, host)
	s.Headless, s.NodeLocal = n == 0, n == 1
	s.Selector = map[string]string{"app": fmt.Sprint(n)}
	dr := &model.DestinationRule{
		Meta: model.Meta{Key: model.Key{Namespace: ns, Name: fmt.Sprint(n)}},
		Spec: &networking.DestinationRule{Host: []string{host, "*"}[n%2]},
	}
	vs := &model.VirtualService{Meta: dr.Meta, Spec: &networking.VirtualService{Hosts: []string{host}}}
	events := []func(*snapshot.Txn){
		func(x *snapshot.Txn) { x.PutService(s) },
		func(x *snapshot.Txn) { x.DeleteService(s.ServiceKey) },
		func(x *snapshot.Txn) {
			x.PutEndpoints(s.ServiceKey, "1", []model.Endpoint{{Address: fmt.Sprint(n), Node: fmt.Sprintf("n%d", n%2), Namespace: ns, ServiceAccount: host}})
		},
		func(x *snapshot.Txn) { x.PutDestinationRule(dr) },
		func(x *snapshot.Txn) { x.DeleteDestinationRule(dr.Key) },
		func(x *snapshot.Txn) { x.PutVirtualService(vs) },
		func(x *snapshot.Txn) { x.DeleteVirtualService(vs.Key) },
		func(x *snapshot.Txn) { x.SetConfig(topology.Config{Epoch: fmt.Sprint(n)}) },
	}
	return events[r.IntN(len(events))]
}

func TestIncrementalEqualsFull(t *testing.T) {
	t.Parallel()
	var proxies []*model.Proxy
	for i := range 8 {
		proxies = append(proxies, sidecar(string(rune('a'+i%2)), fmt.Sprintf("n%d", i/2%2), map[string]string{"app": fmt.Sprint(i / 4)}))
	}
	for seed := range uint64(15) {
		r := rand.New(rand.NewPCG(seed, 2))
		s := newStore()
		now := time.Unix(0, 0)
		c := New(Options{Builder: fakeBuilder{}, Now: func() time.Time { return now }})
		c.Update(s.Current(), nil)
		for step := range 60 {
			now = now.Add(time.Minute)
			c.Update(s.Commit(func(x *snapshot.Txn) { randomEvent(r)(x); randomEvent(r)(x) }))
			full := newCatalog(s)
			for i, p := range proxies {
				if r.IntN(2) == 0 {
					continue // not every class is looked at in every step
				}
				if diff := difference(state(t, full, p), state(t, c, p)); diff != "" {
					t.Fatalf("seed %d step %d proxy %d: %s", seed, step, i, diff)
				}
			}
		}
		for range idleRounds + 2 { // classes that nobody is of any more go
			now = now.Add(time.Minute)
			c.Update(s.Current(), nil)
			for _, p := range proxies {
				state(t, c, p)
			}
		}
		if n := c.Stats().Classes; n > len(proxies) {
			t.Errorf("%d classes for %d proxies", n, len(proxies))
		}
	}
}

func difference(want, got *resource.State) string {
	if want.Epoch != got.Epoch {
		return fmt.Sprintf("epoch %q, want %q", got.Epoch, want.Epoch)
	}
	for t := range resource.NumTypes {
		w, g := want.Sets[t].List(), got.Sets[t].List()
		if len(w) != len(g) {
			return fmt.Sprintf("%s: %d resources, want %d", t.URL(), len(g), len(w))
		}
		for i := range w {
			if w[i].Name != g[i].Name || !equalContent(w[i], g[i]) {
				return fmt.Sprintf("%s: %s differs from %s", t.URL(), g[i].Name, w[i].Name)
			}
		}
	}
	return ""
}

func BenchmarkOneEndpointOf1000Services(b *testing.B) {
	s := newStore()
	s.Commit(func(x *snapshot.Txn) {
		for i := range 1000 {
			svc := service("a", fmt.Sprintf("s%d", i))
			x.PutService(svc)
			x.PutEndpoints(svc.ServiceKey, "1", []model.Endpoint{{Address: "10.0.0.1"}})
		}
	})
	c := newCatalog(s)
	p := sidecar("a", "n", nil)
	if _, err := c.State(p); err != nil {
		b.Fatal(err)
	}
	key := model.ServiceKey{Namespace: "a", Host: "s500"}
	b.ResetTimer()
	for i := range b.N {
		c.Update(s.Commit(func(x *snapshot.Txn) {
			x.PutEndpoints(key, "1", []model.Endpoint{{Address: fmt.Sprintf("10.0.0.%d", i%2)}})
		}))
		if _, err := c.State(p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNewClassOf1000Services(b *testing.B) {
	s := newStore()
	s.Commit(func(x *snapshot.Txn) {
		for i := range 1000 {
			svc := service("a", fmt.Sprintf("s%d", i))
			x.PutService(svc)
			x.PutEndpoints(svc.ServiceKey, "1", []model.Endpoint{{Address: "10.0.0.1"}})
		}
	})
	for range b.N {
		if _, err := newCatalog(s).State(sidecar("a", "n", nil)); err != nil {
			b.Fatal(err)
		}
	}
}
