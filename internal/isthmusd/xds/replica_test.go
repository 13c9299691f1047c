// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/status"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// Contents say what a proxy has to know of them: name;use=<name>;<anything>. A
// cluster uses the endpoints of that name, a listener the route.
func contents(name, use, rest string) string { return name + ";use=" + use + ";" + rest }

func nameIn(content string) string { return strings.Split(content, ";")[0] }

func useIn(content string) string { return strings.TrimPrefix(strings.Split(content, ";")[1], "use=") }

// user is the type whose resources use those of the other.
var user = map[resource.Type]resource.Type{resource.Endpoint: resource.Cluster, resource.Route: resource.Listener}

var served = []resource.Type{resource.Cluster, resource.Endpoint, resource.Listener, resource.Route}

// proxy behaves as Envoy does: it asks for what it uses, applies what is good of
// a rejected response, and speaks of what it has when it comes back.
type proxy interface {
	// settle answers until nothing comes any more.
	settle()
	// connect begins a stream to the replica, with what a former one brought.
	connect(to *mesh)
	// askFor asks for a cluster, if it is one that asks; needs tells whether it should
	// have one; untold are those that may be of former days.
	askFor(cluster string)
	needs(cluster *resource.Resource) bool
	untold() map[string]string
	// has is what it would work with, by type and name.
	has() map[resource.Type]map[string]string
}

// memory is what both kinds of proxies have.
type memory struct {
	random *rand.Rand
	have   map[resource.Type]map[string]string
}

func newMemory(r *rand.Rand) memory {
	m := memory{random: r, have: map[resource.Type]map[string]string{}}
	for _, t := range served {
		m.have[t] = map[string]string{}
	}
	return m
}

func (m *memory) has() map[resource.Type]map[string]string { return m.have }

// uses are the names that the proxy asks for.
func (m *memory) uses(t resource.Type) []string {
	by, named := user[t]
	if !named {
		return nil
	}
	out := map[string]bool{}
	for _, content := range m.have[by] {
		if n := useIn(content); n != "" {
			out[n] = true
		}
	}
	return slices.Sorted(maps.Keys(out))
}

// take applies resources that are used, and tells which are bad.
func (m *memory) take(t resource.Type, in []string) (bad []string) {
	_, named := user[t]
	used := m.uses(t)
	for _, content := range in {
		if named && !slices.Contains(used, nameIn(content)) {
			continue // Asked for in vain: nobody listens any more.
		}
		if strings.HasSuffix(content, "bad") {
			bad = append(bad, nameIn(content))
			continue
		}
		m.have[t][nameIn(content)] = content
	}
	return bad
}

// complaint names what is bad, or not.
func (m *memory) complaint(bad []string) string {
	if m.random.IntN(2) == 0 {
		return "something is wrong"
	}
	return "Error: " + strings.Join(bad, ": no, ") + ": no"
}

func (m *memory) shuffled() []resource.Type {
	out := slices.Clone(served)
	m.random.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// deltaProxy speaks delta ADS.
type deltaProxy struct {
	memory
	*client
	id       string
	asked    map[resource.Type][]string
	versions map[resource.Type]map[string]string
	// onDemand proxies ask for clusters, these so far.
	onDemand bool
	clusters []string
}

func newDeltaProxy(r *rand.Rand, id string) *deltaProxy {
	p := &deltaProxy{memory: newMemory(r), id: id, versions: map[resource.Type]map[string]string{}}
	for _, t := range served {
		p.versions[t] = map[string]string{}
	}
	return p
}

func (p *deltaProxy) connect(to *mesh) {
	if p.client != nil {
		p.cancel()
	}
	p.client, p.asked = to.delta(p.id), map[resource.Type][]string{}
	if p.onDemand {
		p.client.node.Metadata = asks("cart")
	}
	for _, t := range p.shuffled() {
		r := &discovery.DeltaDiscoveryRequest{TypeUrl: t.URL(), InitialResourceVersions: p.versions[t]}
		if p.onDemand && t == resource.Cluster {
			r.ResourceNamesSubscribe = append([]string{"*"}, p.clusters...)
		}
		if _, named := user[t]; named {
			if p.asked[t] = p.uses(t); len(p.asked[t]) == 0 {
				continue
			}
			r.ResourceNamesSubscribe = p.asked[t]
		}
		p.send(r)
	}
}

func (p *deltaProxy) settle() {
	for g := p.soon(); g != nil; g = p.soon() {
		bad := p.take(g.typ, slices.Collect(maps.Values(g.resources)))
		for _, n := range g.removed {
			delete(p.have[g.typ], n)
			delete(p.versions[g.typ], n)
		}
		for n, v := range g.versions {
			p.versions[g.typ][n] = v
			if len(bad) > 0 {
				delete(p.versions[g.typ], n) // Envoy does not list what came with a rejection.
			}
		}
		if len(bad) > 0 {
			p.nack(g, p.complaint(bad))
		} else {
			p.ack(g)
		}
		p.ask()
	}
}

// askFor asks for a cluster, as a request that needs it would.
func (p *deltaProxy) askFor(name string) {
	if p.onDemand && !slices.Contains(p.clusters, name) {
		p.clusters = append(p.clusters, name)
		p.subscribe(resource.Cluster, name)
	}
}

// needs tells whether the proxy should have the cluster. What it once had it keeps.
func (p *deltaProxy) needs(c *resource.Resource) bool {
	return !p.onDemand || !c.OnDemand || slices.Contains(p.clusters, c.Name) || p.versions[resource.Cluster][c.Name] != ""
}

// untold are clusters that it has and cannot tell of when it comes back, for they
// came with a rejection. Nobody can know of them until it asks.
func (p *deltaProxy) untold() map[string]string {
	out := map[string]string{}
	for name, content := range p.have[resource.Cluster] {
		if p.onDemand && p.versions[resource.Cluster][name] == "" {
			out[name] = content
		}
	}
	return out
}

// ask subscribes to what is used now and unsubscribes from what is not.
func (p *deltaProxy) ask() {
	for t := range user {
		r := &discovery.DeltaDiscoveryRequest{TypeUrl: t.URL()}
		now := p.uses(t)
		for _, n := range now {
			if !slices.Contains(p.asked[t], n) {
				r.ResourceNamesSubscribe = append(r.ResourceNamesSubscribe, n)
			}
		}
		for _, n := range p.asked[t] {
			if !slices.Contains(now, n) {
				r.ResourceNamesUnsubscribe = append(r.ResourceNamesUnsubscribe, n)
				delete(p.have[t], n)
				delete(p.versions[t], n)
			}
		}
		p.asked[t] = now
		if len(r.ResourceNamesSubscribe)+len(r.ResourceNamesUnsubscribe) > 0 {
			p.send(r)
		}
	}
}

// worldProxy speaks the state of the world.
type worldProxy struct {
	memory
	*world
	id       string
	asked    map[resource.Type][]string
	accepted map[resource.Type]string
	nonces   map[resource.Type]string
}

func newWorldProxy(r *rand.Rand, id string) *worldProxy {
	return &worldProxy{memory: newMemory(r), id: id, accepted: map[resource.Type]string{}}
}

func (p *worldProxy) askFor(string) {}

func (p *worldProxy) needs(*resource.Resource) bool { return true }

func (p *worldProxy) untold() map[string]string { return nil }

func (p *worldProxy) connect(to *mesh) {
	if p.world != nil {
		p.cancel()
	}
	p.world, p.asked, p.nonces = to.world(p.id), map[resource.Type][]string{}, map[resource.Type]string{}
	for _, t := range p.shuffled() {
		if _, named := user[t]; named && len(p.uses(t)) == 0 {
			continue
		}
		p.asked[t] = p.uses(t)
		p.request(t, "")
	}
}

func (p *worldProxy) request(t resource.Type, why string) {
	r := &discovery.DiscoveryRequest{TypeUrl: t.URL(), ResourceNames: p.asked[t], VersionInfo: p.accepted[t], ResponseNonce: p.nonces[t]}
	if why != "" {
		r.ErrorDetail = &status.Status{Message: why}
	}
	p.send(r)
}

func (p *worldProxy) settle() {
	for g := p.soon(); g != nil; g = p.soon() {
		if _, named := user[g.typ]; !named {
			for n := range p.have[g.typ] {
				if !slices.ContainsFunc(g.names(), func(c string) bool { return nameIn(c) == n }) {
					delete(p.have[g.typ], n)
				}
			}
		}
		p.nonces[g.typ] = g.nonce
		if bad := p.take(g.typ, g.names()); len(bad) > 0 {
			p.request(g.typ, "Error: "+strings.Join(bad, ": no, ")+": no")
		} else {
			p.accepted[g.typ] = g.version
			p.request(g.typ, "")
		}
		for t := range user {
			now := p.uses(t)
			if slices.Equal(now, p.asked[t]) {
				continue
			}
			maps.DeleteFunc(p.have[t], func(n, _ string) bool { return !slices.Contains(now, n) })
			p.asked[t] = now
			p.request(t, "")
		}
	}
}

// mixture is a random configuration that holds together.
func mixture(r *rand.Rand, faulty bool) []*resource.Resource {
	var out []*resource.Resource
	tail := func() string {
		if faulty && r.IntN(8) == 0 {
			return "bad"
		}
		return fmt.Sprint("v", r.IntN(3))
	}
	for i := range 4 {
		n := fmt.Sprint(i)
		if r.IntN(4) > 0 {
			service := fmt.Sprint("s", r.IntN(3))
			c := cluster("c"+n, contents("c"+n, service, tail()), service)
			c.Trusts = [][]string{nil, {"a"}, {"a", "b"}}[r.IntN(3)]
			c.Version += uint64(len(c.Trusts))
			c.OnDemand = r.IntN(3) > 0
			out = append(out, c)
		}
		if r.IntN(4) > 0 {
			out = append(out, listener("l"+n, contents("l"+n, fmt.Sprint("r", r.IntN(3)), tail())))
		}
	}
	for i := range 3 {
		n := fmt.Sprint(i)
		out = append(out, endpoints("s"+n, contents("s"+n, "", fmt.Sprint("v", r.IntN(5)))))
		out = append(out, route("r"+n, contents("r"+n, "", tail())))
	}
	return out
}

// TestAProxyThatChangesReplicasEndsAsOneThatStays sends random sequences of
// configurations to two replicas, with one proxy that stays at the first and one
// that moves between them at random moments.
func TestAProxyThatChangesReplicasEndsAsOneThatStays(t *testing.T) {
	kinds := map[string]func(*rand.Rand, string) proxy{
		"delta": func(r *rand.Rand, id string) proxy { return newDeltaProxy(r, id) },
		"on demand": func(r *rand.Rand, id string) proxy {
			p := newDeltaProxy(r, id)
			p.onDemand = true
			return p
		},
		"state of the world": func(r *rand.Rand, id string) proxy { return newWorldProxy(r, id) },
	}
	for name, make := range kinds {
		for seed := range uint64(25) {
			t.Run(fmt.Sprint(name, " ", seed), func(t *testing.T) {
				inBubble(t, func(t *testing.T) { changeReplicas(t, rand.New(rand.NewPCG(seed, 1)), make) })
			})
		}
	}
}

func changeReplicas(t *testing.T, r *rand.Rand, make func(*rand.Rand, string) proxy) {
	replicas := []*mesh{start(t), start(t)}
	stays, moves := make(r, cartNode), make(r, "sidecar~10.0.0.8~cart-2.shop~shop.svc.cluster.local")
	both := func(rs []*resource.Resource) {
		for _, m := range replicas {
			m.source.set(rs...)
		}
	}
	wait := func(d time.Duration) {
		pass(d)
		for range 2 { // The second answers may let something go to the first.
			stays.settle()
			moves.settle()
		}
	}
	both(mixture(r, false))
	stays.connect(replicas[0])
	moves.connect(replicas[1])
	for range 30 {
		switch r.IntN(4) {
		case 0:
			moves.connect(replicas[r.IntN(2)])
		case 1:
			[]proxy{stays, moves}[r.IntN(2)].askFor(fmt.Sprint("c", r.IntN(4)))
		default:
			both(mixture(r, true))
		}
		if r.IntN(3) > 0 {
			wait([]time.Duration{0, time.Millisecond, time.Second, 20 * time.Second}[r.IntN(4)])
		}
	}
	last := mixture(r, false)
	both(last)
	for range 8 {
		wait(20 * time.Second)
	}
	if diff := cmp.Diff(due(last, stays), stays.has()); diff != "" {
		t.Errorf("the proxy that stayed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(due(last, moves), moves.has()); diff != "" {
		t.Errorf("the proxy that moved (-want +got):\n%s", diff)
	}
	for i, m := range replicas {
		for _, st := range m.server.Status() {
			if st.Behind {
				t.Errorf("replica %d says that %s is behind: %+v", i, st.Name, st.Types)
			}
		}
	}
}

// due is what the proxy should have of a configuration in the end.
func due(of []*resource.Resource, p proxy) map[resource.Type]map[string]string {
	want := map[resource.Type]map[string]string{}
	for _, typ := range served {
		want[typ] = map[string]string{}
	}
	for _, x := range of {
		if x.Type != resource.Cluster || p.needs(x) {
			want[x.Type][x.Name] = string(x.Body)
		}
	}
	for name, content := range p.untold() {
		if want[resource.Cluster][name] == "" {
			want[resource.Cluster][name] = content
		}
	}
	for typ := range user {
		used := (&memory{have: want}).uses(typ)
		maps.DeleteFunc(want[typ], func(n, _ string) bool { return !slices.Contains(used, n) })
	}
	return want
}
