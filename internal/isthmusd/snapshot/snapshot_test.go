// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	meshconfig "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

func newStore() *Store { return NewStore(topology.Config{}, &meshconfig.MeshConfig{}) }

func at(n int) time.Time { return time.Unix(int64(n), 0) }

func service(ns, host string, created int) *model.Service {
	return &model.Service{
		ServiceKey: model.ServiceKey{Namespace: ns, Host: host},
		Object:     model.Meta{Key: model.Key{Namespace: ns, Name: host}, Kind: model.KindService, Created: at(created)},
		Ports:      []model.Port{{Name: "http", Number: 80, Protocol: model.HTTP}},
	}
}

func virtualService(ns, name string, created int, hosts ...string) *model.VirtualService {
	return &model.VirtualService{
		Meta: model.Meta{Key: model.Key{Namespace: ns, Name: name}, Created: at(created)},
		Spec: &networking.VirtualService{Hosts: hosts},
	}
}

func destinationRule(ns, name string, created int, host string) *model.DestinationRule {
	return &model.DestinationRule{
		Meta: model.Meta{Key: model.Key{Namespace: ns, Name: name}, Created: at(created)},
		Spec: &networking.DestinationRule{Host: host},
	}
}

func pod(name, ip string, labels map[string]string) *model.Workload {
	return &model.Workload{
		Key: model.Key{Namespace: "ns", Name: name}, IPs: []netip.Addr{netip.MustParseAddr(ip)},
		Labels: labels, ServiceAccount: "sa", Node: "node-1", Ready: true, Proxied: true,
	}
}

func podEndpoint(name, ip string) model.Endpoint {
	return model.Endpoint{
		Address: ip, Namespace: "ns", Workload: name, Ready: true, Ports: map[string]uint32{"http": 8080},
	}
}

func TestListsComeOldestFirst(t *testing.T) {
	t.Parallel()
	s := newStore()
	s.Commit(func(x *Txn) {
		x.PutService(service("b", "two", 2))
		x.PutService(service("a", "two", 2))
		x.PutService(service("z", "one", 1))
		x.PutVirtualService(virtualService("ns", "wild", 3, "*.c"))
		x.PutVirtualService(virtualService("ns", "exact", 1, "a.b.c", "a.b.c"))
		x.PutVirtualService(virtualService("ns", "both", 2, "a.b.c", "*"))
		x.PutDestinationRule(destinationRule("ns", "wild", 1, "*.b.c"))
		x.PutDestinationRule(destinationRule("ns", "late", 3, "a.b.c"))
		x.PutDestinationRule(destinationRule("ns", "early", 2, "a.b.c"))
	})
	v := s.Current().View(&model.Proxy{}, nil)
	var got []string
	for _, s := range v.Services() {
		got = append(got, s.Namespace+"/"+s.Host)
	}
	for _, s := range v.VirtualServicesByHost("a.b.c") {
		got = append(got, s.Name)
	}
	for _, d := range v.DestinationRulesByHost("a.b.c") {
		got = append(got, d.Name)
	}
	want := []string{"z/one", "a/two", "b/two", "exact", "both", "wild", "early", "late", "wild"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestCovering(t *testing.T) {
	t.Parallel()
	for host, want := range map[string][]string{
		"a.b.c":   {"a.b.c", "*.b.c", "*.c", "*"},
		"*.b.c":   {"*.b.c", "*.c", "*"},
		"*":       {"*"},
		"unknown": {"unknown", "*"},
	} {
		if diff := cmp.Diff(want, covering(host)); diff != "" {
			t.Errorf("%s: %s", host, diff)
		}
	}
}

func TestEndpointsAreJoinedWithPodsAndNodes(t *testing.T) {
	t.Parallel()
	s := newStore()
	svc := service("ns", "web", 1)
	s.Commit(func(x *Txn) {
		x.PutEndpoints(svc.ServiceKey, "web-1", []model.Endpoint{podEndpoint("p1", "10.0.0.1")})
		x.PutService(svc)
	})
	s.Commit(func(x *Txn) { x.PutWorkload(pod("p1", "10.0.0.1", map[string]string{"app": "web"})) })
	_, changes := s.Commit(func(x *Txn) { x.PutNode(&model.Node{Name: "node-1", Locality: "r/z"}) })
	if _, ok := changes[Read{Endpoints, ByKey, "ns/web"}]; !ok {
		t.Errorf("moving the node does not touch the endpoints behind it: %v", changes)
	}
	v := s.Current().View(&model.Proxy{}, nil)
	want := []model.Endpoint{{
		Address: "10.0.0.1", Ports: map[string]uint32{"http": 8080}, Ready: true,
		Labels: map[string]string{"app": "web"}, Namespace: "ns", Workload: "p1", ServiceAccount: "sa",
		Pod: true, TLSMode: model.TLSIstio, Locality: "r/z", Node: "node-1",
	}}
	if diff := cmp.Diff(want, v.Endpoints(svc.ServiceKey)); diff != "" {
		t.Error(diff)
	}
	wantSummary := model.Summary{ServiceAccounts: []string{"ns/sa"}, Ready: 1, AllTLS: true, AnyTLS: true}
	if diff := cmp.Diff(wantSummary, v.Summary(svc.ServiceKey)); diff != "" {
		t.Error(diff)
	}
}

func TestChurnThatLeavesTheSummaryAloneTouchesEndpointsOnly(t *testing.T) {
	t.Parallel()
	s := newStore()
	svc := service("ns", "web", 1)
	s.Commit(func(x *Txn) {
		x.PutService(svc)
		x.PutWorkload(pod("p1", "10.0.0.1", nil))
		x.PutWorkload(pod("p2", "10.0.0.2", nil))
		x.PutEndpoints(svc.ServiceKey, "web-1", []model.Endpoint{podEndpoint("p1", "10.0.0.1")})
	})
	_, changes := s.Commit(func(x *Txn) {
		x.PutEndpoints(svc.ServiceKey, "web-1", []model.Endpoint{podEndpoint("p1", "10.0.0.1"), podEndpoint("p2", "10.0.0.2")})
	})
	want := Changes{Read{Endpoints, ByKey, "ns/web"}: {}}
	if diff := cmp.Diff(want, changes); diff != "" {
		t.Error(diff)
	}
}

func TestServiceEntriesSelectPods(t *testing.T) {
	t.Parallel()
	s := newStore()
	entry := service("ns", "db.example.com", 1)
	entry.Object.Kind, entry.EndpointsFromWorkloads = model.KindServiceEntry, true
	entry.Selector = map[string]string{"app": "db"}
	entry.Ports[0].TargetName = "pg"
	p := pod("p1", "10.0.0.1", map[string]string{"app": "db"})
	p.Ports = map[string]uint32{"pg": 5432}
	s.Commit(func(x *Txn) { x.PutService(entry) })
	s.Commit(func(x *Txn) { x.PutWorkload(p) })
	es := s.Current().View(nil, nil).Endpoints(entry.ServiceKey)
	if len(es) != 1 || es[0].Ports["http"] != 5432 || es[0].ServiceAccount != "sa" {
		t.Errorf("got %+v", es)
	}
	s.Commit(func(x *Txn) { x.PutWorkload(pod("p1", "10.0.0.1", nil)) })
	if es := s.Current().View(nil, nil).Endpoints(entry.ServiceKey); len(es) != 0 {
		t.Errorf("a relabelled pod stays: %+v", es)
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ in, want []model.Endpoint }{
		"one address in two slices is one": {
			in:   []model.Endpoint{{Address: "1", Ports: map[string]uint32{"a": 1}}, {Address: "1", Ready: true, Ports: map[string]uint32{"b": 2}}},
			want: []model.Endpoint{{Address: "1", Ready: true, Ports: map[string]uint32{"a": 1, "b": 2}}},
		},
		"two ports of one address under one name stay two": {
			in:   []model.Endpoint{{Address: "1", Ports: map[string]uint32{"a": 1}}, {Address: "1", Ports: map[string]uint32{"a": 2}}},
			want: []model.Endpoint{{Address: "1", Ports: map[string]uint32{"a": 1}}, {Address: "1", Ports: map[string]uint32{"a": 2}}},
		},
		"sorted by address": {
			in:   []model.Endpoint{{Address: "2"}, {Address: "1"}},
			want: []model.Endpoint{{Address: "1"}, {Address: "2"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, merge(tc.in)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestCommitsComeInAnyOrder has a commit for each part of an endpoint: what is of
// no use to anybody yet must not be forgotten.
func TestCommitsComeInAnyOrder(t *testing.T) {
	t.Parallel()
	svc := service("ns", "web", 1)
	parts := map[string]func(*Txn){
		"service":   func(x *Txn) { x.PutService(svc) },
		"endpoints": func(x *Txn) { x.PutEndpoints(svc.ServiceKey, "web-1", []model.Endpoint{podEndpoint("p1", "10.0.0.1")}) },
		"workload":  func(x *Txn) { x.PutWorkload(pod("p1", "10.0.0.1", nil)) },
		"node":      func(x *Txn) { x.PutNode(&model.Node{Name: "node-1", Locality: "r/z"}) },
	}
	for first := range parts {
		t.Run(first+" first", func(t *testing.T) {
			t.Parallel()
			s := newStore()
			s.Commit(parts[first])
			for name, part := range parts {
				if name != first {
					s.Commit(part)
				}
			}
			got := s.Current().View(&model.Proxy{}, nil).Endpoints(svc.ServiceKey)
			if len(got) != 1 || got[0].Locality != "r/z" || got[0].ServiceAccount != "sa" {
				t.Errorf("endpoints %+v", got)
			}
		})
	}
}

func TestEndpointsThatNameANodeAreWhereItIs(t *testing.T) {
	t.Parallel()
	svc := service("ns", "web", 1)
	bare := []model.Endpoint{{Address: "10.0.0.1", Node: "node-1", Ready: true}}
	node := func(locality string) func(*Txn) {
		return func(x *Txn) { x.PutNode(&model.Node{Name: "node-1", Locality: locality}) }
	}
	slice := func(source string) func(*Txn) {
		return func(x *Txn) { x.PutEndpoints(svc.ServiceKey, source, bare) }
	}
	for name, tc := range map[string]struct {
		events []func(*Txn)
		want   string
	}{
		"the node first":    {[]func(*Txn){node("r/z"), slice("s")}, "r/z"},
		"the slice first":   {[]func(*Txn){slice("s"), node("r/z")}, "r/z"},
		"a node that moves": {[]func(*Txn){node("r/y"), slice("s"), node("r/z")}, "r/z"},
		"a node that goes":  {[]func(*Txn){node("r/z"), slice("s"), func(x *Txn) { x.DeleteNode("node-1") }}, ""},
		"a slice that says what another has said, which goes": {[]func(*Txn){node("r/z"), slice("s"), slice("t"), func(x *Txn) { x.DeleteEndpoints(svc.ServiceKey, "s") }}, "r/z"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore()
			for _, e := range tc.events {
				s.Commit(e)
			}
			es := s.Current().View(nil, nil).Endpoints(svc.ServiceKey)
			if len(es) != 1 || es[0].Locality != tc.want {
				t.Errorf("endpoints %+v, want one in %q", es, tc.want)
			}
		})
	}
}

func TestNothingNewIsNoRevision(t *testing.T) {
	t.Parallel()
	s := newStore()
	put := func(x *Txn) {
		x.PutService(service("ns", "web", 1))
		x.PutVirtualService(virtualService("ns", "v", 1, "web"))
		x.PutWorkload(pod("p1", "10.0.0.1", nil))
		x.SetConfig(topology.Config{Epoch: "1"})
	}
	first, _ := s.Commit(put)
	second, changes := s.Commit(put)
	if first != second || len(changes) != 0 {
		t.Errorf("a second revision with %v", changes)
	}
}

// question asks a View one thing; the answer must be the same as long as no
// recorded read is in Changes.
type question func(*View) any

func questions() []question {
	var qs []question
	for i := range 4 {
		host, ns := hostOf(i), fmt.Sprintf("ns%d", i%2)
		key := model.ServiceKey{Namespace: ns, Host: host}
		qs = append(qs,
			func(v *View) any { return v.Service(key) },
			func(v *View) any { return v.ServicesByHost(host) },
			func(v *View) any { return v.ServicesByNamespace(ns) },
			func(v *View) any { return v.ServicesSelecting(ns, map[string]string{"app": host}) },
			func(v *View) any { return v.ServicesByPort(80) },
			func(v *View) any { return v.ServicesByAddress(fmt.Sprintf("10.0.0.%d", i)) },
			func(v *View) any { return v.Endpoints(key) },
			func(v *View) any { return v.Summary(key) },
			func(v *View) any { return v.VirtualServicesByHost(host) },
			func(v *View) any { return v.DestinationRulesByHost(host) },
			func(v *View) any { return v.Workloads(ns, map[string]string{"app": host}) },
		)
	}
	return append(qs,
		func(v *View) any { return v.Services() },
		func(v *View) any { return v.VirtualServices() },
		func(v *View) any { return v.Workloads("", nil) },
	)
}

func hostOf(i int) string { return []string{"a.x.y", "b.x.y", "*.x.y", "c.y"}[i%4] }

func randomEvent(r *rand.Rand) func(*Txn) {
	i, n := r.IntN(4), r.IntN(3)
	host, ns := hostOf(i), fmt.Sprintf("ns%d", r.IntN(2))
	key := model.ServiceKey{Namespace: ns, Host: host}
	w := pod(fmt.Sprintf("p%d", i), fmt.Sprintf("10.0.0.%d", i), map[string]string{"app": hostOf(n)})
	w.Namespace, w.Proxied, w.Node = ns, n == 0, fmt.Sprintf("node-%d", n)
	s := service(ns, host, n)
	s.Selector, s.Headless = map[string]string{"app": hostOf(n)}, n == 1
	if n == 2 {
		s.Object.Kind, s.EndpointsFromWorkloads = model.KindServiceEntry, true
	}
	if i == 3 {
		w.Kind = model.KindWorkloadEntry
	}
	events := []func(*Txn){
		func(x *Txn) { x.PutService(s) },
		func(x *Txn) { x.DeleteService(key) },
		func(x *Txn) { x.PutWorkload(w) },
		func(x *Txn) { x.DeleteWorkload(w.Kind, w.Key) },
		func(x *Txn) { x.PutNode(&model.Node{Name: w.Node, Locality: fmt.Sprint(i)}) },
		func(x *Txn) { x.DeleteNode(w.Node) },
		func(x *Txn) {
			x.PutEndpoints(key, fmt.Sprint(n), []model.Endpoint{
				{Address: "1.1.1.1", Namespace: ns, Workload: w.Name, Ready: i > 1}, {Address: "2.2.2.2", Node: w.Node, Ready: true},
			})
		},
		func(x *Txn) { x.DeleteEndpoints(key, fmt.Sprint(n)) },
		func(x *Txn) { x.PutVirtualService(virtualService(ns, fmt.Sprint(n), i, host, hostOf(i+n))) },
		func(x *Txn) { x.DeleteVirtualService(model.Key{Namespace: ns, Name: fmt.Sprint(n)}) },
		func(x *Txn) { x.PutDestinationRule(destinationRule(ns, fmt.Sprint(n), i, host)) },
	}
	return events[r.IntN(len(events))]
}

func TestChangesNameEveryReadWhoseAnswerChanged(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := newStore()
		for range 100 {
			before := s.Current()
			batch := []func(*Txn){randomEvent(r), randomEvent(r)}
			after, changes := s.Commit(func(x *Txn) {
				for _, e := range batch {
					e(x)
				}
			})
			checkQuestions(t, before, after, changes)
		}
	}
}

func checkQuestions(t *testing.T, before, after *Snapshot, changes Changes) {
	t.Helper()
	for n, q := range questions() {
		var rec Record
		old := q(before.View(&model.Proxy{}, &rec))
		dirty := false
		for _, read := range rec.Reads() {
			_, ok := changes[read]
			dirty = dirty || ok
		}
		if dirty {
			continue
		}
		now := q(after.View(&model.Proxy{}, nil))
		if !reflect.DeepEqual(old, now) {
			t.Fatalf("question %d has another answer, though none of its reads changed: %s", n, cmp.Diff(fmt.Sprint(old), fmt.Sprint(now)))
		}
	}
}
