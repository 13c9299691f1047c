// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/catalog"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/generate"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/topology"
	"github.com/isthmus-mesh/isthmus/test/envoys"
)

// TestTheSameBySmallSteps is the property that all sharing and all caching rests
// on: whatever happened to the world's objects and in whatever order, each proxy
// has what a control plane gives it that is started on the world as it is now.
// And what the translator reads it leaves as it was.
func TestTheSameBySmallSteps(t *testing.T) {
	t.Parallel()
	templates := worldTemplates(t)
	for _, kind := range []topology.Kind{topology.IngressOnly, topology.SidecarEgress, topology.EgressGateway} {
		for seed := range uint64(1) {
			t.Run(fmt.Sprint(kind, " ", seed), func(t *testing.T) {
				t.Parallel()
				w := newWorld(kind, seed, templates)
				w.grow(t)
				c := catalogOf(w.store)
				for step := range 15 {
					for range 1 + w.r.IntN(3) {
						w.happen(t)
					}
					c.Update(w.commit())
					w.check(t, step, c)
				}
				w.accepted(t, c)
			})
		}
	}
}

// world is a set of objects, and what came of them step by step.
type world struct {
	r         *rand.Rand
	kind      topology.Kind
	converter Converter
	kinds     []*kind
	templates []string
	objects   map[ID]Object
	texts     map[ID]string // of which they are made
	batch     map[ID]Object
	rows      *rowSet
	store     *snapshot.Store
}

func worldTemplates(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("testdata/world.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(b), "\n---\n")
}

func newWorld(k topology.Kind, seed uint64, templates []string) *world {
	w := &world{
		r: rand.New(rand.NewPCG(seed, uint64(len(k)))), kind: k, kinds: kinds(), templates: templates,
		converter: Converter{Topology: Defaults(topology.Config{Topology: k}), Standalone: seed == 0},
		objects:   map[ID]Object{}, texts: map[ID]string{}, batch: map[ID]Object{}, rows: newRowSet(),
	}
	w.store = w.newStore()
	return w
}

// newStore is that of a control plane that has just been started.
func (w *world) newStore() *snapshot.Store {
	mesh, err := ParseMesh("", w.converter.Topology)
	if err != nil {
		panic(err)
	}
	return snapshot.NewStore(w.converter.Topology, mesh)
}

var choice = regexp.MustCompile(`<([^<>]*)>`)

// write fills in a template.
func (w *world) write(template string) string {
	text := choice.ReplaceAllStringFunc(template, func(c string) string {
		options := strings.Split(c[1:len(c)-1], "|")
		return options[w.r.IntN(len(options))]
	})
	return strings.ReplaceAll(text, "TOPOLOGY", string(w.kind))
}

// read makes an object of a text. None comes of some that choices spoil.
func (w *world) read(t *testing.T, text string) map[ID]Object {
	t.Helper()
	p, err := parseFile(w.kinds, w.converter, []byte(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return p.objects
}

// grow makes a world of an empty one, object by object, some of every kind.
func (w *world) grow(t *testing.T) {
	t.Helper()
	for range 2 {
		for _, i := range w.r.Perm(len(w.templates)) {
			w.populate(t, w.templates[i])
			w.commit()
		}
	}
}

// populate lets an object come.
func (w *world) populate(t *testing.T, template string) {
	t.Helper()
	text := w.write(template)
	for id, o := range w.read(t, text) {
		w.objects[id], w.batch[id], w.texts[id] = o, o, text
	}
}

// happen lets an object come, change, or go. The configuration does not go: what
// it said would stay.
func (w *world) happen(t *testing.T) {
	t.Helper()
	if w.r.IntN(3) > 0 {
		w.populate(t, w.templates[w.r.IntN(len(w.templates))])
		return
	}
	ids := slices.SortedFunc(maps.Keys(w.objects), func(a, b ID) int { return strings.Compare(a.String(), b.String()) })
	if id := ids[w.r.IntN(len(ids))]; id.Kind != "ConfigMap" {
		delete(w.objects, id)
		delete(w.texts, id)
		w.batch[id] = Object{}
	}
}

func (w *world) commit() (*snapshot.Snapshot, snapshot.Changes) {
	batch := w.batch
	w.batch = map[ID]Object{}
	return w.store.Commit(func(x *snapshot.Txn) { w.rows.apply(x, batch) })
}

// restarted is a store that learns of all objects at once.
func (w *world) restarted() *snapshot.Store {
	s := w.newStore()
	s.Commit(func(x *snapshot.Txn) { newRowSet().apply(x, w.objects) })
	return s
}

// unread is a store of the same objects that no translator has seen yet.
func (w *world) unread(t *testing.T) *snapshot.Store {
	t.Helper()
	objects := map[ID]Object{}
	for id, text := range w.texts {
		objects[id] = w.read(t, text)[id]
	}
	s := w.newStore()
	s.Commit(func(x *snapshot.Txn) { newRowSet().apply(x, objects) })
	return s
}

func catalogOf(s *snapshot.Store) *catalog.Catalog {
	c := catalog.New(catalog.Options{Builder: generate.New()})
	c.Update(s.Current(), nil)
	return c
}

// check compares both for every proxy, or in some steps for only some of them: not
// every class is looked at all the time.
func (w *world) check(t *testing.T, step int, bySteps *catalog.Catalog) {
	t.Helper()
	fresh := w.restarted()
	full := catalogOf(fresh)
	read := inputs(w.unread(t).Current())
	if diff := differing(read, inputs(w.store.Current())); diff != "" {
		t.Fatalf("step %d: the world is another by small steps:\n%s", step, diff)
	}
	for _, p := range worldProxies(w.r) {
		sameState(t, step, p, full, bySteps)
	}
	if problems := full.Stats().Problems; len(problems) > 0 {
		t.Fatalf("step %d: cannot build: %+v", step, problems)
	}
	for name, s := range map[string]*snapshot.Store{"fresh": fresh, "old": w.store} {
		if diff := differing(read, inputs(s.Current())); diff != "" {
			t.Fatalf("step %d: translation has changed its %s input:\n%s", step, name, diff)
		}
	}
}

// accepted holds what came of all that happened against a real Envoy.
func (w *world) accepted(t *testing.T, c *catalog.Catalog) {
	t.Helper()
	for _, p := range worldProxies(w.r) {
		state, err := c.State(p)
		if err != nil {
			t.Fatal(err)
		}
		rs := envoys.Resources{}
		for k := range resource.NumTypes {
			rs[k] = map[string]proto.Message{}
			for _, r := range state.Sets[k].List() {
				m, err := (&anypb.Any{TypeUrl: k.URL(), Value: r.Body}).UnmarshalNew()
				if err != nil {
					t.Fatal(err)
				}
				rs[k][r.Name] = m
			}
		}
		t.Run("accepted by "+p.Name, func(t *testing.T) { envoys.Accept(t, rs) })
	}
}

// worldProxies are some of the proxies of the world.
func worldProxies(r *rand.Rand) []*model.Proxy {
	ip := netip.MustParseAddr
	all := []*model.Proxy{
		{Type: "sidecar", Namespace: "one", Name: "p1", Labels: map[string]string{"app": "a", "version": "v1"}, Locality: "eu/z1", Node: "n1", IPs: []netip.Addr{ip("10.0.0.1")}, Interception: "REDIRECT", Delta: true},
		{Type: "sidecar", Namespace: "one", Name: "p2", Labels: map[string]string{"app": "b"}, Locality: "us/z2", Node: "n2", IPs: []netip.Addr{ip("10.0.0.2")}, Interception: "REDIRECT"},
		{Type: "sidecar", Namespace: "two", Name: "p3", Labels: map[string]string{"app": "c"}, IPs: []netip.Addr{ip("10.0.0.3"), ip("fd00::3")}, Interception: "NONE", Delta: true},
		{Type: "router", Namespace: "isthmus-system", Name: "ingress", Labels: map[string]string{"istio": "ingressgateway"}, Locality: "eu/z1", IPs: []netip.Addr{ip("10.0.9.2")}, Delta: true},
		{Type: "router", Namespace: "one", Name: "own", Labels: map[string]string{"istio": "ingressgateway"}, IPs: []netip.Addr{ip("10.0.0.9")}, Delta: true},
		{Type: "router", Namespace: "isthmus-system", Name: "egress-1", Labels: map[string]string{"isthmus.dev/gateway": "egress"}, IPs: []netip.Addr{ip("10.0.9.1")}, Delta: true},
	}
	return slices.DeleteFunc(all, func(p *model.Proxy) bool {
		p.ID = p.Namespace + "/" + p.Name
		return r.IntN(3) == 0
	})
}

func sameState(t *testing.T, step int, p *model.Proxy, full, bySteps *catalog.Catalog) {
	t.Helper()
	want, err := full.State(p)
	if err != nil {
		t.Fatal(err)
	}
	got, err := bySteps.State(p)
	if err != nil {
		t.Fatal(err)
	}
	if want.Epoch != got.Epoch {
		t.Fatalf("step %d, proxy %s: epoch %q, want %q", step, p.ID, got.Epoch, want.Epoch)
	}
	for k := range resource.NumTypes {
		w, g := byName(want.Sets[k].List()), byName(got.Sets[k].List())
		for _, name := range slices.Sorted(maps.Keys(w)) {
			if g[name] == nil {
				t.Fatalf("step %d, proxy %s: %s %q is missing", step, p.ID, k.URL(), name)
			}
			if !bytes.Equal(w[name].Body, g[name].Body) || w[name].ServiceName != g[name].ServiceName {
				t.Fatalf("step %d, proxy %s: %s %q differs", step, p.ID, k.URL(), name)
			}
			delete(g, name)
		}
		for name := range g {
			t.Fatalf("step %d, proxy %s: %s %q is too many", step, p.ID, k.URL(), name)
		}
	}
}

func byName(rs []*resource.Resource) map[string]*resource.Resource {
	out := make(map[string]*resource.Resource, len(rs))
	for _, r := range rs {
		out[r.Name] = r
	}
	return out
}

// inputs writes all that a View hands out.
func inputs(s *snapshot.Snapshot) []string {
	v := s.View(&model.Proxy{}, nil)
	config, err := json.Marshal(v.Config())
	out := []string{fmt.Sprint(string(config), err), text(v.Mesh())}
	say := func(x any) { out = append(out, fmt.Sprintf("%+v", x)) }
	hosts := map[string]bool{}
	for _, svc := range v.Services() {
		hosts[svc.Host] = true
		say(*svc)
		say(v.Endpoints(svc.ServiceKey))
		say(v.Summary(svc.ServiceKey))
	}
	for _, w := range v.Workloads("", nil) {
		say(*w)
	}
	for _, vs := range v.VirtualServices() {
		out = append(out, vs.String()+text(vs.Spec))
	}
	for _, g := range v.Gateways() {
		out = append(out, g.String()+text(g.Spec))
	}
	for _, host := range slices.Sorted(maps.Keys(hosts)) {
		for _, d := range v.DestinationRulesByHost(host) {
			out = append(out, d.String()+text(d.Spec))
		}
	}
	for _, ns := range []string{"one", "two", "isthmus-system"} {
		if n := v.Namespace(ns); n != nil {
			say(*n)
		}
		for _, sc := range v.Sidecars(ns) {
			out = append(out, sc.String()+text(sc.Spec))
		}
		for _, pa := range v.PeerAuthentications(ns) {
			out = append(out, pa.String()+text(pa.Spec))
		}
		for _, name := range []string{"shop", "client"} {
			if secret := v.Secret(model.Key{Namespace: ns, Name: name}); secret != nil {
				say(*secret)
			}
		}
	}
	return out
}

func text(m proto.Message) string { return prototext.MarshalOptions{}.Format(m) }

// differing shows the first line that is not in both.
func differing(want, got []string) string {
	for i := range max(len(want), len(got)) {
		var w, g string
		if i < len(want) {
			w = want[i]
		}
		if i < len(got) {
			g = got[i]
		}
		if w != g {
			return fmt.Sprintf("%s\nis not\n%s", g, w)
		}
	}
	return ""
}
