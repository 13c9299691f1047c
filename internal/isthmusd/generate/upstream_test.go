// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ingest"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// TestClustersTellWhomTheyTrust is what the order of narrower clusters and their
// endpoints rests on.
func TestClustersTellWhomTheyTrust(t *testing.T) {
	t.Parallel()
	c := ingest.Defaults(topology.Config{Topology: topology.SidecarEgress})
	mesh, err := ingest.ParseMesh("", c)
	if err != nil {
		t.Fatal(err)
	}
	k := model.ServiceKey{Namespace: "shop", Host: "cart.shop.svc.cluster.local"}
	store := snapshot.NewStore(c, mesh)
	store.Commit(func(x *snapshot.Txn) {
		x.PutService(&model.Service{
			ServiceKey: k, Name: "cart", Object: model.Meta{Key: model.Key{Namespace: "shop", Name: "cart"}, Kind: model.KindService},
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.96.0.1/32")},
			Ports:     []model.Port{{Name: "http", Number: 80, Protocol: model.HTTP, TargetPort: 8080}},
		})
	})
	name := "outbound|80||" + k.Host
	trusted := func(accounts ...string) []string {
		snap, _ := store.Commit(func(x *snapshot.Txn) {
			var es []model.Endpoint
			for i, a := range accounts {
				es = append(es, model.Endpoint{
					Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}).String(), Ports: map[string]uint32{"http": 8080},
					Namespace: "shop", ServiceAccount: a, TLSMode: model.TLSIstio, Ready: true,
				})
			}
			x.PutEndpoints(k, "slice", es)
		})
		_, up, err := New().Build(snap.View(&model.Proxy{Type: "sidecar", Namespace: "shop"}, &snapshot.Record{}), resource.Clusters, name)
		if err != nil {
			t.Fatal(err)
		}
		if up.ServiceName != name {
			t.Errorf("service name %q", up.ServiceName)
		}
		return up.Trusts
	}
	if diff := cmp.Diff([]string{"spiffe://cluster.local/ns/shop/sa/a", "spiffe://cluster.local/ns/shop/sa/b"}, trusted("b", "a")); diff != "" {
		t.Error(diff)
	}
	if got := trusted(); len(got) != 0 {
		t.Errorf("without endpoints %v are trusted by name", got)
	}
}
