// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ingest"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// crowd is a mesh of n services and n external hosts.
func crowd(b *testing.B, n int) *snapshot.Snapshot {
	b.Helper()
	c := ingest.Defaults(topology.Config{
		Topology: topology.EgressGateway,
		EgressGateway: &topology.Gateway{
			Namespace: "isthmus-system", Service: "egress", ServiceAccount: "egress", Port: 15443,
			Labels: map[string]string{"isthmus.dev/gateway": "egress"},
		},
	})
	mesh, err := ingest.ParseMesh("", c)
	if err != nil {
		b.Fatal(err)
	}
	snap, _ := snapshot.NewStore(c, mesh).Commit(func(x *snapshot.Txn) {
		for i := range n {
			name, ns := fmt.Sprintf("svc-%d", i), fmt.Sprintf("ns-%d", i%20)
			k := model.ServiceKey{Namespace: ns, Host: name + "." + ns + ".svc.cluster.local"}
			addr := netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})
			x.PutService(&model.Service{
				ServiceKey: k, Name: name, Object: model.Meta{Key: model.Key{Namespace: ns, Name: name}, Kind: model.KindService},
				Addresses: []netip.Prefix{netip.PrefixFrom(addr, 32)}, Selector: map[string]string{"app": name},
				Ports: []model.Port{
					{Name: "http", Number: 80, Protocol: model.HTTP, TargetPort: 8080},
					{Name: "tcp", Number: 9000, Protocol: model.TCP, TargetPort: 9000},
				},
			})
			out := model.ServiceKey{Namespace: ns, Host: fmt.Sprintf("host-%d.example.com", i)}
			x.PutService(&model.Service{
				ServiceKey: out, Object: model.Meta{Key: model.Key{Namespace: ns, Name: name}, Kind: model.KindServiceEntry},
				External: true, Resolution: model.DNS, Ports: []model.Port{{Name: "tls", Number: 443, Protocol: model.TLS, TargetPort: 443}},
			})
		}
	})
	return snap
}

func BenchmarkEverythingOfOneProxy(b *testing.B) {
	snap := crowd(b, 1000)
	for name, p := range map[string]*model.Proxy{
		"sidecar": {Type: "sidecar", Namespace: "ns-1", Labels: map[string]string{"app": "svc-1"}},
		"egress":  {Type: "router", Namespace: "isthmus-system", Labels: map[string]string{"isthmus.dev/gateway": "egress"}},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for part := range resource.NumParts {
					buildPart(b, snap, p, part)
				}
			}
		})
	}
}

func buildPart(b *testing.B, snap *snapshot.Snapshot, p *model.Proxy, part resource.Part) {
	b.Helper()
	names, err := New().Names(snap.View(p, &snapshot.Record{}), part)
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range names {
		if _, _, err := New().Build(snap.View(p, &snapshot.Record{}), part, name); err != nil {
			b.Fatal(err)
		}
	}
}
