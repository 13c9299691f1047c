// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"slices"
	"testing"

	meshconfig "istio.io/api/mesh/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// TestObjectsOutsideTheMeshDoNotCount holds that nobody who may write only in a
// namespace that is no member opens a host or takes one over.
func TestObjectsOutsideTheMeshDoNotCount(t *testing.T) {
	t.Parallel()
	s := NewStore(topology.Config{
		Namespace: "isthmus-system",
		Members:   []metav1.LabelSelector{{MatchLabels: map[string]string{"mesh": "yes"}}},
	}, &meshconfig.MeshConfig{})
	entry := func(ns string) *model.Service {
		e := service(ns, "api.example.com", 1)
		e.Object.Kind, e.External = model.KindServiceEntry, true
		return e
	}
	namespaces := []string{"in", "out", "isthmus-system"}
	s.Commit(func(x *Txn) {
		x.PutNamespace(&model.Namespace{Name: "in", Labels: map[string]string{"mesh": "yes"}})
		x.PutNamespace(&model.Namespace{Name: "out"})
		for _, ns := range namespaces {
			x.PutService(entry(ns))
			x.PutService(service(ns, "web."+ns+".svc.cluster.local", 2))
			x.PutVirtualService(virtualService(ns, "v", 1, "api.example.com"))
			x.PutDestinationRule(destinationRule(ns, "d", 1, "api.example.com"))
		}
	})
	count := func() (entries, services, virtual, rules int) {
		v := s.Current().View(&model.Proxy{}, nil)
		if v.VirtualService(model.Key{Namespace: "out", Name: "v"}) != nil {
			t.Log("VirtualService out/v is found by name")
			virtual += 10
		}
		return len(v.ServicesByHost("api.example.com")), len(v.Services()),
			virtual + len(v.VirtualServicesByHost("api.example.com")), len(v.DestinationRulesByHost("api.example.com"))
	}
	if e, all, vs, dr := count(); e != 2 || all != 5 || vs != 2 || dr != 2 {
		t.Errorf("%d entries, %d services, %d VirtualServices, %d DestinationRules; want 2, 5, 2, 2: those of the member and of the root, and every Kubernetes Service", e, all, vs, dr)
	}

	rec := &Record{}
	s.Current().View(&model.Proxy{}, rec).ServicesByHost("api.example.com")
	_, changes := s.Commit(func(x *Txn) {
		x.PutNamespace(&model.Namespace{Name: "out", Labels: map[string]string{"mesh": "yes"}})
	})
	if !slices.ContainsFunc(rec.Reads(), func(r Read) bool { _, ok := changes[r]; return ok }) {
		t.Error("a namespace became a member, and what had asked for the host is not told")
	}
	if e, all, vs, dr := count(); e != 3 || all != 6 || vs != 13 || dr != 3 {
		t.Errorf("after joining: %d entries, %d services, %d VirtualServices, %d DestinationRules; want all", e, all, vs, dr)
	}
}
