// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ingest"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// TestListenersAndRoutesDoNotKnowTheTopology guards what keeps connections alive
// when a mesh moves: Envoy drains what changes by a byte.
func TestListenersAndRoutesDoNotKnowTheTopology(t *testing.T) {
	t.Parallel()
	tc := readCase(t, "testdata/egress")
	proxies := map[string]model.Proxy{}
	for _, name := range []string{"sidecar", "elsewhere"} {
		p := *tc.proxies[name]
		proxies[name] = p
		p.HostsApart = true
		proxies[name+" with hosts apart"] = p
		p.OnDemand = true
		proxies[name+" on demand"] = p
	}
	for name, p := range proxies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := map[string]string{}
			for _, kind := range []topology.Kind{topology.EgressGateway, topology.SidecarEgress, topology.IngressOnly} {
				got := frozen(t, generateAll(t, inTopology(t, tc, kind), &p))
				if kind == topology.EgressGateway {
					want = got
				}
				if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); diff != "" {
					t.Errorf("%s has other listeners or routes: %s", kind, diff)
				}
				for name := range want {
					if want[name] != got[name] {
						t.Errorf("%s changes %s", kind, name)
					}
				}
			}
		})
	}
}

// inTopology is the case with another topology and nothing else changed.
func inTopology(t *testing.T, tc testCase, kind topology.Kind) *snapshot.Snapshot {
	t.Helper()
	docs := bytes.Replace(tc.docs, []byte("topology: EgressGateway"), []byte("topology: "+string(kind)), 1)
	snap, err := ingest.Load(docs, topology.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if snap.Config().Topology != kind {
		t.Fatalf("the case does not name its topology")
	}
	return snap
}

// frozen is the bytes of what must not change, by type and name; also the names
// of all clusters, to which listeners and routes refer.
func frozen(t *testing.T, rs resources) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, kind := range []resource.Type{resource.Listener, resource.Route, resource.VirtualHost} {
		for name, m := range rs[kind] {
			raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			out[typeName(kind)+" "+name] = string(raw)
		}
	}
	for name := range rs[resource.Cluster] {
		out["cluster "+name] = ""
	}
	return out
}
