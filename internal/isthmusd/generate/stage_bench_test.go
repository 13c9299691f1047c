// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/envoy"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resolve"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

const (
	benchCluster = "outbound|80||svc-1.ns-1.svc.cluster.local"
)

func benchView(b *testing.B, services int) *snapshot.View {
	b.Helper()
	p := &model.Proxy{Type: "sidecar", Namespace: "ns-1", Labels: map[string]string{"app": "svc-1"}}
	return crowd(b, services).View(p, &snapshot.Record{})
}

// BenchmarkResolve is one resource's IR, in meshes of two sizes: it should not
// matter how large they are.
func BenchmarkResolve(b *testing.B) {
	for name, services := range map[string]int{"100-services": 100, "1000-services": 1000} {
		v := benchView(b, services)
		b.Run("cluster/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if resolve.SidecarCluster(v, benchCluster) == nil {
					b.Fatal("no such cluster")
				}
			}
		})
		b.Run("assignment/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if resolve.Assignment(v, benchCluster) == nil {
					b.Fatal("no such assignment")
				}
			}
		})
	}
}

// BenchmarkTranslate is Envoy's bytes of one resource's IR.
func BenchmarkTranslate(b *testing.B) {
	v := benchView(b, 100)
	cluster, assignment := resolve.SidecarCluster(v, benchCluster), resolve.Assignment(v, benchCluster)
	hosts := resolve.SidecarHosts(v)
	host := resolve.SidecarHost(v, hosts[0])
	for name, translate := range map[string]func() (proto.Message, error){
		"cluster": func() (proto.Message, error) {
			m, _, err := envoy.Cluster(*cluster)
			return m, err
		},
		"assignment":  func() (proto.Message, error) { return envoy.Assignment(*assignment) },
		"virtualhost": func() (proto.Message, error) { return envoy.VirtualHost(*host) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m, err := translate()
				if err != nil {
					b.Fatal(err)
				}
				if _, err := proto.Marshal(m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
