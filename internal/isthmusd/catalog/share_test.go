// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"fmt"
	"testing"

	networking "istio.io/api/networking/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/catalog"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/topology"
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

// TestARouteIsOneHost: where virtual hosts come on their own, one that changes
// leaves all else as it was, and is small.
func TestARouteIsOneHost(t *testing.T) {
	t.Parallel()
	s := mesh1000()
	c := realCatalog(s)
	p := &model.Proxy{Type: "sidecar", Namespace: "ns0", Delta: true, HostsApart: true}
	before := mustState(t, c, p)
	e := event{ns: "ns0", host: "s500.ns0.svc.cluster.local", name: "v"}
	c.Update(s.Commit(func(x *snapshot.Txn) { x.PutVirtualService(e.virtualService()) }))
	after := mustState(t, c, p)
	for k := range resource.NumTypes {
		if k != resource.VirtualHost && after.Sets[k] != before.Sets[k] {
			t.Errorf("%s changed", k.URL())
		}
	}
	var changed []*resource.Resource
	for _, r := range after.Sets[resource.VirtualHost].List() {
		if before.Sets[resource.VirtualHost].Get(r.Name) != r {
			changed = append(changed, r)
		}
	}
	if len(changed) != 1 || len(changed[0].Body) > 800 {
		t.Errorf("changed: %d hosts, want one of a few hundred bytes", len(changed))
	}
	table := after.Sets[resource.Route].Get("vhds.80")
	if table == nil || len(table.Body) > 200 {
		t.Errorf("the table holds more than what is for all: %v", table)
	}
}

// shelves tells how many are built for the proxies.
func shelves(t *testing.T, c *catalog.Catalog, proxies []*model.Proxy) int {
	t.Helper()
	for _, p := range proxies {
		mustState(t, c, p)
	}
	return c.Stats().Shelves
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

// TestNamespacesWithTheSameFlowsShare: under an allowance a proxy's namespace matters
// only by the flows that it has. Of 20 namespaces two kinds are built, and one that
// gets other labels goes over to the other kind.
func TestNamespacesWithTheSameFlowsShare(t *testing.T) {
	t.Parallel()
	s := meshOf(50)
	members := func(v string) topology.Peer {
		return topology.Peer{Namespaces: &metav1.LabelSelector{MatchLabels: map[string]string{"mesh": v}}}
	}
	label := func(x *snapshot.Txn, ns, mesh string) {
		x.PutNamespace(&model.Namespace{Name: ns, Labels: map[string]string{"mesh": mesh}})
	}
	var proxies []*model.Proxy
	for i := range 20 {
		proxies = append(proxies, &model.Proxy{Type: "sidecar", Namespace: fmt.Sprintf("caller%d", i)})
	}
	open := shelves(t, realCatalog(s), proxies)
	s.Commit(func(x *snapshot.Txn) {
		c := base
		c.Topology, c.EgressGateway = topology.EgressGateway, &topology.Gateway{Namespace: base.Namespace, Service: "out", Port: 15443}
		c.Allowance = []topology.Flow{
			{From: members("yes"), To: []topology.Peer{members("yes")}},
			{From: members("apart"), To: []topology.Peer{members("apart")}},
		}
		x.SetConfig(c)
		label(x, "ns0", "yes")
		for i, p := range proxies {
			label(x, p.Namespace, []string{"yes", "apart"}[i/10])
		}
	})
	c := realCatalog(s)
	step := func(name string, want int, change func(*snapshot.Txn)) {
		t.Helper()
		c.Update(s.Commit(change))
		fresh := realCatalog(s)
		if n, most := shelves(t, fresh, proxies), open+(want-1)*int(resource.NumParts); n > most {
			t.Errorf("%s: %d shelves are built for %d namespaces, want at most %d, without an allowance %d", name, n, len(proxies), most, open)
		}
		for _, kind := range []resource.Type{resource.Cluster, resource.Endpoint} {
			for _, p := range proxies {
				own, anew := mustState(t, c, p).Sets[kind], mustState(t, fresh, p).Sets[kind]
				for _, r := range anew.List() {
					if got := own.Get(r.Name); got == nil || got.Version != r.Version {
						t.Fatalf("%s: %s in %s is not what a full build makes", name, r.Name, p.Namespace)
					}
				}
			}
		}
	}
	step("two kinds of namespaces", 2, func(*snapshot.Txn) {})
	step("one goes over", 2, func(x *snapshot.Txn) { label(x, "caller0", "apart") })
	step("another is no member any more", 3, func(x *snapshot.Txn) { label(x, "caller11", "no") })
	step("all are alike", 1, func(x *snapshot.Txn) {
		for _, p := range proxies {
			label(x, p.Namespace, "yes")
		}
	})
}
