// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package isthmusd

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ingest"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/topology"
	"github.com/isthmus-mesh/isthmus/internal/validate"
)

// ownCluster has one of each thing whose addresses are the cluster's own.
func ownCluster(t *testing.T) *snapshot.Store {
	t.Helper()
	c := ingest.Defaults(topology.Config{Namespace: "isthmus-system"})
	mesh, err := ingest.ParseMesh("", c)
	if err != nil {
		t.Fatal(err)
	}
	store := snapshot.NewStore(c, mesh)
	store.Commit(func(x *snapshot.Txn) {
		x.PutNode(&model.Node{Name: "n", PodRanges: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("fd00:10:244::/64")}})
		x.PutWorkload(&model.Workload{
			Key: model.Key{Namespace: "shop", Name: "cart-1"}, Kind: model.KindPod, IPs: []netip.Addr{netip.MustParseAddr("172.30.0.9")},
		})
		x.PutWorkload(&model.Workload{
			Key: model.Key{Namespace: "shop", Name: "vm"}, Kind: model.KindWorkloadEntry, IPs: []netip.Addr{netip.MustParseAddr("192.0.2.7")},
		})
		service := func(kind string, host, ip string) {
			x.PutService(&model.Service{
				ServiceKey: model.ServiceKey{Namespace: "default", Host: host}, Object: model.Meta{Key: model.Key{Namespace: "default", Name: host}, Kind: kind},
				Addresses: []netip.Prefix{netip.MustParsePrefix(ip)},
			})
		}
		service(model.KindService, "kubernetes.default.svc.cluster.local", "10.96.0.1/32")
		service(model.KindServiceEntry, "api.example.com", "192.0.2.8/32")
		x.PutEndpoints(model.ServiceKey{Namespace: "default", Host: "kubernetes.default.svc.cluster.local"}, "kubernetes",
			[]model.Endpoint{{Address: "198.51.100.1", Ready: true}})
	})
	return store
}

func TestTenantsMayNotNameTheClustersOwnAddresses(t *testing.T) {
	t.Parallel()
	rules := newAdmission(ownCluster(t)).Rules()
	objects := map[string]string{
		"ServiceEntry":  `{"hosts":["x.example.com"],"ports":[{"number":443,"name":"tls","protocol":"TLS"}],"resolution":"STATIC","endpoints":[{"address":%q}]}`,
		"WorkloadEntry": `{"address":%q}`,
	}
	tests := map[string]struct {
		address string
		allowed bool
	}{
		"in a node's range of pods":         {address: "10.244.0.77"},
		"in a node's second range":          {address: "fd00:10:244::7"},
		"a pod outside the nodes' ranges":   {address: "172.30.0.9"},
		"a Service":                         {address: "10.96.0.1"},
		"the API server":                    {address: "198.51.100.1"},
		"what another WorkloadEntry names":  {address: "192.0.2.7", allowed: true},
		"what another ServiceEntry names":   {address: "192.0.2.8", allowed: true},
		"something outside of the cluster":  {address: "203.0.113.1", allowed: true},
		"the API server, mapped into IPv6":  {address: "::ffff:198.51.100.1"},
		"in a node's range, mapped as well": {address: "::ffff:10.244.0.9"},
	}
	for name, tc := range tests {
		for kind, spec := range objects {
			t.Run(kind+" "+name, func(t *testing.T) {
				t.Parallel()
				err := validate.Check(validate.Object{Kind: kind, Namespace: "shop", Spec: fmt.Appendf(nil, spec, tc.address)}, rules).Err()
				if (err == nil) != tc.allowed || err != nil && !strings.Contains(err.Error(), "pods, Services or the API server") {
					t.Errorf("error = %v", err)
				}
				if err := validate.Check(validate.Object{Kind: kind, Namespace: "isthmus-system", Spec: fmt.Appendf(nil, spec, tc.address)}, rules).Err(); err != nil {
					t.Errorf("in the mesh's own namespace: %v", err)
				}
			})
		}
	}
}
