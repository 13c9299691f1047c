// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// benchObjects are documents of kinds that there are many of.
func benchObjects() map[string]string {
	var entry, slice []string
	for i := range 10 {
		entry = append(entry, fmt.Sprintf(`{"address":"10.0.0.%d","labels":{"app":"a","version":"v1"},"locality":"r1/z0","serviceAccount":"a"}`, i))
		slice = append(slice, fmt.Sprintf(`{"addresses":["10.0.0.%d"],"conditions":{"ready":true,"serving":true},"zone":"z0","nodeName":"n","targetRef":{"kind":"Pod","name":"a-%d","namespace":"ns"}}`, i, i))
	}
	return map[string]string{
		"ServiceEntry": `{"apiVersion":"networking.istio.io/v1","kind":"ServiceEntry","metadata":{"name":"a","namespace":"ns"},"spec":{
"hosts":["a.ns.mesh.test"],"addresses":["172.16.0.1"],"location":"MESH_INTERNAL","resolution":"STATIC",
"ports":[{"number":8080,"name":"http","protocol":"HTTP"}],"endpoints":[` + strings.Join(entry, ",") + `]}}`,
		"EndpointSlice": `{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"name":"a-s","namespace":"ns",
"labels":{"kubernetes.io/service-name":"a"}},"addressType":"IPv4","ports":[{"name":"http","port":8080,"protocol":"TCP"}],"endpoints":[` + strings.Join(slice, ",") + `]}`,
		"Pod": `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a-1","namespace":"ns","labels":{"app":"a","version":"v1"}},
"spec":{"nodeName":"n","serviceAccountName":"a","containers":[{"name":"app","image":"app:1"}]},
"status":{"phase":"Running","podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"}],"conditions":[{"type":"Ready","status":"True"}]}}`,
	}
}

// BenchmarkIngest takes one object as a watch gives it, and commits what it says.
func BenchmarkIngest(b *testing.B) {
	c := Converter{Topology: Defaults(topology.Config{})}
	for name, doc := range benchObjects() {
		b.Run(name, func(b *testing.B) {
			var kd *kind
			for _, k := range kinds() {
				if k.name == name {
					kd = k
				}
			}
			store := snapshot.NewStore(c.Topology, &meshconfig.MeshConfig{})
			b.ReportAllocs()
			for b.Loop() {
				o := kd.new()
				if err := json.Unmarshal([]byte(doc), o); err != nil {
					b.Fatal(err)
				}
				rows, err := c.convert(kd, o)
				if err != nil || len(rows) == 0 {
					b.Fatalf("%d rows, %v", len(rows), err)
				}
				store.Commit(func(x *snapshot.Txn) {
					for _, r := range rows {
						r.Put(x)
					}
				})
			}
		})
	}
}
