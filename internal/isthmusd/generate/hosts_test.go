// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ingest"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// TestPiecesAgree: virtual hosts are built one by one, yet no two of a table claim
// the same domain, however much names and addresses clash; and nobody takes its
// full name from a Service. It makes no difference to a request whether they come
// in their table or on their own.
func TestPiecesAgree(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		snap, full := clashing(t, r)
		p := model.Proxy{Type: "sidecar", Namespace: "x", IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
		whole := routesByDomain(tablesOf(t, generateAll(t, snap, &p))["80"])
		p.HostsApart = true
		apart := routesByDomain(tablesOf(t, generateAll(t, snap, &p))["vhds.80"])
		for _, host := range full {
			if whole[host] == "" {
				t.Errorf("Service %s is not known by its name", host)
			}
		}
		if d := cmp.Diff(whole, apart); d != "" {
			t.Errorf("(-in tables +apart):\n%s", d)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// routesByDomain is what happens to requests for each domain of a table.
func routesByDomain(table *routev3.RouteConfiguration) map[string]string {
	out := map[string]string{}
	for _, h := range table.GetVirtualHosts() {
		for _, d := range h.Domains {
			rest := proto.Clone(h).(*routev3.VirtualHost)
			rest.Name, rest.Domains = "", nil
			b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(rest) // it was valid
			out[d] = string(b)
		}
	}
	return out
}

// clashing is a mesh of names and addresses that get in each other's way, and the
// full names of its Services.
func clashing(t *testing.T, r *rand.Rand) (*snapshot.Snapshot, []string) {
	t.Helper()
	c := ingest.Defaults(topology.Config{})
	mesh, err := ingest.ParseMesh("", c)
	if err != nil {
		t.Fatal(err)
	}
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	address := func() []netip.Prefix {
		return []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 96, 0, byte(r.IntN(3))}), 32)}
	}
	http := []model.Port{{Name: "http", Number: 80, Protocol: model.HTTP, TargetPort: 8080}}
	var full []string
	snap, _ := snapshot.NewStore(c, mesh).Commit(func(x *snapshot.Txn) {
		for range 3 {
			name, ns := pick("a", "b"), pick("x", "y")
			s := &model.Service{
				ServiceKey: model.ServiceKey{Namespace: ns, Host: name + "." + ns + ".svc.cluster.local"}, Name: name,
				Object: model.Meta{Key: model.Key{Namespace: ns, Name: name}, Kind: model.KindService}, Ports: http, Addresses: address(),
			}
			if r.IntN(2) == 0 {
				s.Headless, s.Addresses, s.Resolution = true, nil, model.Passthrough
			}
			x.PutService(s)
			full = append(full, s.Host)
		}
		for i := range 4 {
			ns := pick("x", "y")
			x.PutService(&model.Service{
				ServiceKey: model.ServiceKey{Namespace: ns, Host: pick(odd()...)},
				Object:     model.Meta{Key: model.Key{Namespace: ns, Name: fmt.Sprint(i)}, Kind: model.KindServiceEntry},
				External:   true, Resolution: model.DNS, Ports: http, Addresses: address(),
			})
			x.PutVirtualService(&model.VirtualService{
				Meta: model.Meta{Key: model.Key{Namespace: ns, Name: fmt.Sprint(i)}},
				Spec: &networking.VirtualService{Hosts: []string{pick(odd()...)}, Http: []*networking.HTTPRoute{{
					DirectResponse: &networking.HTTPDirectResponse{Status: 200},
				}}},
			})
		}
	})
	return snap, full
}

// odd are hosts that look like something else.
func odd() []string {
	return []string{
		"a", "a.x", "b.y", "a.x.svc", "*.a.x", "*.b.y.svc", "*.a.x.svc.cluster.local", "*.a", "10.96.0.1",
		"web.example.com", "*.example.com", "*",
	}
}

// TestComposedTablesAreTables: bytes put one behind the other are the message that
// holds all of it.
func TestComposedTablesAreTables(t *testing.T) {
	t.Parallel()
	host := func(name string) *routev3.VirtualHost {
		return &routev3.VirtualHost{Name: name, Domains: []string{name}, IncludeRequestAttemptCount: true}
	}
	whole := &routev3.RouteConfiguration{Name: "80", VirtualHosts: []*routev3.VirtualHost{host("*"), host("a"), host("b")}}
	sealed := func(m proto.Message) *resource.Resource {
		body, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return &resource.Resource{Body: body}
	}
	body := New().Compose(
		sealed(&routev3.RouteConfiguration{Name: "80", VirtualHosts: whole.VirtualHosts[:1]}),
		[]*resource.Resource{sealed(host("a")), sealed(host("b"))},
	)
	got := &routev3.RouteConfiguration{}
	if err := proto.Unmarshal(body, got); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(whole, got) {
		t.Errorf("got %v, want %v", got, whole)
	}
}
