// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	meshconfig "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"
	security "istio.io/api/security/v1beta1"
	selector "istio.io/api/type/v1beta1"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/catalog"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/generate"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

var base = topology.Config{
	Name: "default", Namespace: "isthmus-system", Topology: topology.IngressOnly, Outbound: topology.AllowAny,
	MTLS: topology.Permissive, TrustDomain: "cluster.local", ClusterDomain: "cluster.local",
}

func realCatalog(s *snapshot.Store) *catalog.Catalog {
	c := catalog.New(catalog.Options{Builder: generate.New()})
	c.Update(s.Current(), nil)
	return c
}

// event is a random change of one object.
type event struct {
	ns, host, app, name string
	n                   int
	created             time.Time
}

func newEvent(r *rand.Rand) event {
	i := r.IntN(4)
	ns := fmt.Sprintf("ns%d", r.IntN(2))
	app := fmt.Sprintf("app%d", i)
	host := app + "." + ns + ".svc.cluster.local"
	if i == 3 {
		host = "*.example.com"
	}
	return event{ns: ns, host: host, app: app, name: fmt.Sprint(r.IntN(3)), n: r.IntN(8), created: time.Unix(int64(r.IntN(3)), 0)}
}

func (e event) meta() model.Meta {
	return model.Meta{Key: model.Key{Namespace: e.ns, Name: e.name}, Created: e.created}
}

func (e event) service() *model.Service {
	protocols := []model.Protocol{model.HTTP, model.TCP, model.GRPC, model.TLS, model.Auto, model.HTTP2, model.HTTPS, model.UDP}
	s := &model.Service{
		ServiceKey: model.ServiceKey{Namespace: e.ns, Host: e.host}, Name: e.app,
		Object:    model.Meta{Key: model.Key{Namespace: e.ns, Name: e.app}, Kind: model.KindService, Created: e.created},
		Ports:     []model.Port{{Name: "p", Number: uint32(80 + e.n%3), TargetPort: 8080, Protocol: protocols[e.n]}},
		Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 96, 0, byte(len(e.host) + e.n)}), 32)},
		Selector:  map[string]string{"app": e.app},
		NodeLocal: e.n == 1, Headless: e.n == 2,
	}
	if s.Headless {
		s.Addresses, s.Resolution = nil, model.Passthrough
	}
	if e.app == "app3" {
		s.Name, s.Selector, s.External, s.Object.Kind = "", nil, true, model.KindServiceEntry
		s.Resolution = model.Passthrough
	}
	return s
}

func (e event) workload() *model.Workload {
	return &model.Workload{
		Key: model.Key{Namespace: e.ns, Name: e.app}, IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(e.n)})},
		Labels: map[string]string{"app": e.app, "version": e.name}, ServiceAccount: e.app, Node: "n" + e.name,
		Ready: e.n > 1, Proxied: e.n > 3,
	}
}

func (e event) virtualService() *model.VirtualService {
	return &model.VirtualService{Meta: e.meta(), Spec: &networking.VirtualService{
		Hosts: []string{e.host},
		Http: []*networking.HTTPRoute{{Route: []*networking.HTTPRouteDestination{{
			Destination: &networking.Destination{Host: e.host, Subset: []string{"", "v0"}[e.n%2]},
		}}}},
	}}
}

func (e event) destinationRule() *model.DestinationRule {
	d := &networking.DestinationRule{
		Host:    []string{e.host, "*.svc.cluster.local"}[e.n%2],
		Subsets: []*networking.Subset{{Name: "v0", Labels: map[string]string{"version": "0"}}},
	}
	if e.n > 4 {
		d.WorkloadSelector = &selector.WorkloadSelector{MatchLabels: map[string]string{"app": "app1"}}
	}
	return &model.DestinationRule{Meta: e.meta(), Spec: d}
}

func (e event) peerAuthentication() *model.PeerAuthentication {
	p := &security.PeerAuthentication{Mtls: &security.PeerAuthentication_MutualTLS{
		Mode: security.PeerAuthentication_MutualTLS_Mode(e.n % 4),
	}}
	if e.n > 3 {
		p.Selector = &selector.WorkloadSelector{MatchLabels: map[string]string{"app": e.app}}
	}
	return &model.PeerAuthentication{Meta: e.meta(), Spec: p}
}

func (e event) sidecar() *model.Sidecar {
	return &model.Sidecar{Meta: e.meta(), Spec: &networking.Sidecar{
		Egress: []*networking.IstioEgressListener{{Hosts: []string{[]string{"./*", "*/*", "ns1/*"}[e.n%3]}}},
	}}
}

func (e event) gateway() *model.Gateway {
	return &model.Gateway{Meta: e.meta(), Spec: &networking.Gateway{
		Selector: map[string]string{"app": e.app},
		Servers:  []*networking.Server{{Port: &networking.Port{Number: 8080, Name: "http", Protocol: "HTTP"}, Hosts: []string{"*"}}},
	}}
}

func (e event) config() topology.Config {
	c := base
	c.Epoch = e.name
	if e.n == 0 {
		c.Topology, c.Outbound = topology.SidecarEgress, topology.RegistryOnly
	}
	return c
}

func (e event) apply(r *rand.Rand, x *snapshot.Txn) {
	s := e.service()
	changes := []func(){
		func() { x.PutService(s) },
		func() { x.DeleteService(s.ServiceKey) },
		func() { x.PutWorkload(e.workload()) },
		func() { x.DeleteWorkload(model.KindPod, e.workload().Key) },
		func() {
			x.PutEndpoints(s.ServiceKey, e.name, []model.Endpoint{{
				Address: fmt.Sprintf("10.0.0.%d", e.n), Ports: map[string]uint32{"p": 8080}, Ready: true, Namespace: e.ns, Workload: e.app,
			}})
		},
		func() { x.DeleteEndpoints(s.ServiceKey, e.name) },
		func() { x.PutVirtualService(e.virtualService()) },
		func() { x.DeleteVirtualService(e.meta().Key) },
		func() { x.PutDestinationRule(e.destinationRule()) },
		func() { x.DeleteDestinationRule(e.meta().Key) },
		func() { x.PutPeerAuthentication(e.peerAuthentication()) },
		func() { x.DeletePeerAuthentication(e.meta().Key) },
		func() { x.PutSidecar(e.sidecar()) },
		func() { x.DeleteSidecar(e.meta().Key) },
		func() { x.PutGateway(e.gateway()) },
		func() { x.SetConfig(e.config()) },
		func() { x.PutNamespace(&model.Namespace{Name: e.ns, Labels: map[string]string{"n": e.name}}) },
	}
	changes[r.IntN(len(changes))]()
}

func proxies() []*model.Proxy {
	var out []*model.Proxy
	for i := range 8 {
		p := &model.Proxy{
			ID: fmt.Sprint(i), Type: "sidecar", Namespace: fmt.Sprintf("ns%d", i%2), Name: fmt.Sprintf("app%d", i/2),
			Node: fmt.Sprintf("n%d", i%3), Labels: map[string]string{"app": fmt.Sprintf("app%d", i/2)},
			IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}, Interception: "REDIRECT", Delta: i%4 != 0, HostsApart: i%4 > 1, OnDemand: i == 2 || i == 3,
		}
		if i >= 6 {
			p.Type = "router"
		}
		out = append(out, p)
	}
	return out
}

// TestIncrementalEqualsFullWithTheRealTranslator is the property that all sharing
// and all caching rests on.
func TestIncrementalEqualsFullWithTheRealTranslator(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 3))
			s := snapshot.NewStore(base, &meshconfig.MeshConfig{})
			c := realCatalog(s)
			for step := range 80 {
				c.Update(s.Commit(func(x *snapshot.Txn) {
					for range 1 + r.IntN(3) {
						newEvent(r).apply(r, x)
					}
				}))
				full := realCatalog(s)
				for _, p := range proxies() {
					if r.IntN(2) == 0 {
						continue // not every class is looked at in every step
					}
					compare(t, step, p, full, c)
				}
			}
		})
	}
}

func compare(t *testing.T, step int, p *model.Proxy, full, incremental *catalog.Catalog) {
	t.Helper()
	if problems := full.Stats().Problems; len(problems) > 0 {
		t.Fatalf("step %d: cannot build: %+v", step, problems)
	}
	want, err := full.State(p)
	if err != nil {
		t.Fatal(err)
	}
	got, err := incremental.State(p)
	if err != nil {
		t.Fatal(err)
	}
	if want.Epoch != got.Epoch {
		t.Fatalf("step %d: epoch %q, want %q", step, got.Epoch, want.Epoch)
	}
	sameNames(t, step, want.Unasked, got.Unasked)
	for k := range resource.NumTypes {
		w, g := want.Sets[k].List(), got.Sets[k].List()
		if len(w) != len(g) {
			t.Fatalf("step %d, proxy %s, %s: %d resources, want %d", step, p.ID, k.URL(), len(g), len(w))
		}
		for i := range w {
			if w[i].Name != g[i].Name || !bytes.Equal(w[i].Body, g[i].Body) || w[i].ServiceName != g[i].ServiceName {
				t.Fatalf("step %d, proxy %s, %s: %s differs", step, p.ID, k.URL(), w[i].Name)
			}
		}
	}
}

// sameNames compares which clusters need no asking for; what is in them is compared
// with the rest.
func sameNames(t *testing.T, step int, want, got *resource.Set) {
	t.Helper()
	same := func(a, b *resource.Resource) bool { return a.Name == b.Name }
	if !slices.EqualFunc(want.List(), got.List(), same) {
		t.Fatalf("step %d: other clusters need no asking for", step)
	}
}

func mesh1000() *snapshot.Store { return meshOf(1000) }

func meshOf(services int) *snapshot.Store {
	s := snapshot.NewStore(base, &meshconfig.MeshConfig{})
	s.Commit(func(x *snapshot.Txn) {
		for i := range services {
			name := fmt.Sprintf("s%d", i)
			svc := &model.Service{
				ServiceKey: model.ServiceKey{Namespace: "ns0", Host: name + ".ns0.svc.cluster.local"}, Name: name,
				Object:    model.Meta{Key: model.Key{Namespace: "ns0", Name: name}, Kind: model.KindService},
				Ports:     []model.Port{{Name: "http", Number: 80, TargetPort: 8080, Protocol: model.HTTP}},
				Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 96, byte(i / 256), byte(i)}), 32)},
				Selector:  map[string]string{"app": name},
			}
			x.PutService(svc)
			x.PutEndpoints(svc.ServiceKey, "1", endpoints(0))
		}
	})
	return s
}

func endpoints(n int) []model.Endpoint {
	var out []model.Endpoint
	for i := range 10 {
		out = append(out, model.Endpoint{
			Address: fmt.Sprintf("10.%d.0.%d", n, i), Ports: map[string]uint32{"http": 8080}, Ready: true,
			Namespace: "ns0", ServiceAccount: "sa", TLSMode: model.TLSIstio,
		})
	}
	return out
}

// change commits changes one after the other to a mesh of 1000 services and asks
// for the State of one proxy after each.
func change(b *testing.B, change func(i int, x *snapshot.Txn)) {
	s := mesh1000()
	c, p := realCatalog(s), proxies()[0]
	if _, err := c.State(p); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		c.Update(s.Commit(func(x *snapshot.Txn) { change(i, x) }))
		if _, err := c.State(p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRealEndpointOf1000Services(b *testing.B) {
	key := model.ServiceKey{Namespace: "ns0", Host: "s500.ns0.svc.cluster.local"}
	change(b, func(i int, x *snapshot.Txn) { x.PutEndpoints(key, "1", endpoints(1+i%2)) })
}

func BenchmarkRealVirtualServiceOf1000Services(b *testing.B) {
	e := event{ns: "ns0", host: "s500.ns0.svc.cluster.local", name: "v"}
	change(b, func(i int, x *snapshot.Txn) {
		v := e.virtualService()
		v.Spec.Http[0].Name = fmt.Sprint(i)
		x.PutVirtualService(v)
	})
}

func BenchmarkRealNewServiceAmong1000(b *testing.B) {
	change(b, func(i int, x *snapshot.Txn) {
		e := event{ns: "ns0", app: "new", host: "new.ns0.svc.cluster.local"}
		if i%2 == 0 {
			x.PutService(e.service())
			return
		}
		x.DeleteService(e.service().ServiceKey)
	})
}

// BenchmarkRealEndpointSeenBy100Apps is one endpoint's change among 1000 services
// in a mesh of 100 kinds of proxies.
func BenchmarkRealEndpointSeenBy100Apps(b *testing.B) {
	s := mesh1000()
	c := realCatalog(s)
	var apps []*model.Proxy
	for i := range 100 {
		p := *proxies()[0]
		p.Labels = map[string]string{"app": fmt.Sprintf("s%d", i)}
		apps = append(apps, &p)
		if _, err := c.State(&p); err != nil {
			b.Fatal(err)
		}
	}
	key := model.ServiceKey{Namespace: "ns0", Host: "s500.ns0.svc.cluster.local"}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		c.Update(s.Commit(func(x *snapshot.Txn) { x.PutEndpoints(key, "1", endpoints(1+i%2)) }))
		for _, p := range apps {
			if _, err := c.State(p); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkRealNewApp is the first proxy of a new app among 1000 services.
func BenchmarkRealNewApp(b *testing.B) {
	c := realCatalog(mesh1000())
	if _, err := c.State(proxies()[0]); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		p := *proxies()[0]
		p.Labels = map[string]string{"app": fmt.Sprintf("new%d", i)}
		if _, err := c.State(&p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRealNewClassOf1000Services(b *testing.B) {
	s := mesh1000()
	b.ReportAllocs()
	for range b.N {
		if _, err := realCatalog(s).State(proxies()[0]); err != nil {
			b.Fatal(err)
		}
	}
}
