// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"testing"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/catalog"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// TestNamespacesShare: what two namespaces see alike is built and held once, also
// for workloads that serve different things, until a Sidecar parts them.
func TestNamespacesShare(t *testing.T) {
	t.Parallel()
	s := mesh1000()
	c := realCatalog(s)
	here := &model.Proxy{Type: "sidecar", Namespace: "ns0", Labels: map[string]string{"app": "s0"}}
	there := &model.Proxy{Type: "sidecar", Namespace: "elsewhere"}
	scoped := &model.Sidecar{
		Meta: model.Meta{Key: model.Key{Namespace: "elsewhere", Name: "only-own"}},
		Spec: &networking.Sidecar{Egress: []*networking.IstioEgressListener{{Hosts: []string{"./*"}}}},
	}
	steps := []struct {
		name   string
		change func(*snapshot.Txn)
		shared bool
	}{
		{"nobody has a Sidecar", func(*snapshot.Txn) {}, true},
		{"one namespace has one", func(x *snapshot.Txn) { x.PutSidecar(scoped) }, false},
		{"it is gone", func(x *snapshot.Txn) { x.DeleteSidecar(scoped.Key) }, true},
	}
	for _, step := range steps {
		c.Update(s.Commit(step.change))
		a, b := mustState(t, c, here), mustState(t, c, there)
		for _, kind := range []resource.Type{resource.Endpoint, resource.Cluster} {
			if got := sharesAll(a.Sets[kind], b.Sets[kind]); got != step.shared {
				t.Errorf("%s: %s shared: %t, want %t", step.name, kind.URL(), got, step.shared)
			}
		}
	}
}

// sharesAll tells whether b holds most of what a does, and of that the same pointers.
func sharesAll(a, b *resource.Set) bool {
	for _, r := range b.List() {
		if a.Get(r.Name) != r {
			return false
		}
	}
	return len(b.List()) > len(a.List())/2
}

func mustState(t *testing.T, c *catalog.Catalog, p *model.Proxy) *resource.State {
	t.Helper()
	s, err := c.State(p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
