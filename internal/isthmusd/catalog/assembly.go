// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// assembly joins the Sets of shelves into those of States. From the same Sets it
// makes the same pointer as long as some class shows that, so that what did not
// change is not new.
type assembly struct {
	builder Builder
	unions  memo[pair, *resource.Set]
	routes  memo[pair, *resource.Set]
	apart   memo[pair, *resource.Set]
	tables  memo[uint64, *resource.Resource]
	unasked memo[[3]*resource.Set, *resource.Set]
}

// pair of Sets that are joined.
type pair struct{ a, b *resource.Set }

func newAssembly(b Builder) assembly {
	return assembly{
		builder: b, unions: newMemo[pair, *resource.Set](), routes: newMemo[pair, *resource.Set](),
		apart: newMemo[pair, *resource.Set](), tables: newMemo[uint64, *resource.Resource](),
		unasked: newMemo[[3]*resource.Set, *resource.Set](),
	}
}

// sets joins what the shelves of a class hold.
func (a *assembly) sets(of shelves) (out [resource.NumTypes]*resource.Set) {
	out[resource.Cluster] = a.union(of[resource.Clusters].set, of[resource.OwnClusters].set)
	out[resource.Endpoint] = of[resource.Endpoints].set
	out[resource.Listener] = a.union(of[resource.Listeners].set, of[resource.OwnListeners].set)
	hosts := pair{of[resource.Tables].set, a.union(of[resource.Hosts].set, of[resource.UnregisteredHosts].set)}
	out[resource.Route] = a.compose(hosts)
	out[resource.VirtualHost] = a.apart.get(hosts, hosts.apart)
	out[resource.Secret] = of[resource.Secrets].set
	return out
}

// withoutAsking are the clusters of these sets that need no asking for.
func (a *assembly) withoutAsking(sets [resource.NumTypes]*resource.Set) *resource.Set {
	of := [3]*resource.Set{sets[resource.Cluster], sets[resource.Route], sets[resource.VirtualHost]}
	return a.unasked.get(of, func() *resource.Set { return resource.Unasked(of[0], of[1:]...) })
}

func (a *assembly) union(x, y *resource.Set) *resource.Set {
	return a.unions.get(pair{x, y}, func() *resource.Set { return resource.Union(x, y) })
}

// compose puts virtual hosts into their tables, but for tables whose hosts come
// on their own. A table none of whose pieces changed keeps its pointer.
func (a *assembly) compose(of pair) *resource.Set {
	composed := func(t *resource.Resource) bool { return !t.HostsApart && len(of.b.Below(t.Name)) > 0 }
	if !slices.ContainsFunc(of.a.List(), composed) {
		return of.a
	}
	return a.routes.get(of, func() *resource.Set {
		out := make([]*resource.Resource, 0, len(of.a.List()))
		for _, t := range of.a.List() {
			if composed(t) {
				t = a.table(t, of.b.Below(t.Name))
			}
			out = append(out, t)
		}
		return resource.NewSet(out)
	})
}

// apart are the virtual hosts that come on their own, of a pair of tables and
// hosts. What belongs to no table goes nowhere.
func (p pair) apart() *resource.Set {
	var out []*resource.Resource
	for _, t := range p.a.List() {
		if t.HostsApart {
			out = append(out, p.b.Below(t.Name)...)
		}
	}
	return resource.NewSet(out)
}

// table is a table with its virtual hosts. Its version is a hash of theirs, so
// that equal contents are found without joining them.
func (a *assembly) table(t *resource.Resource, hosts []*resource.Resource) *resource.Resource {
	var d xxhash.Digest
	d.Reset()
	var b [8]byte
	for _, v := range append([]*resource.Resource{t}, hosts...) {
		binary.LittleEndian.PutUint64(b[:], v.Version)
		_, _ = d.Write(b[:]) // never fails
	}
	version := d.Sum64()
	return a.tables.get(version, func() *resource.Resource {
		return &resource.Resource{Type: t.Type, Name: t.Name, Version: version, Body: a.builder.Compose(t, hosts)}
	})
}

// forget lets go of what no class shows; all classes must have been asked for
// since the last time.
func (a *assembly) forget() {
	a.unions.forget()
	a.routes.forget()
	a.apart.forget()
	a.tables.forget()
	a.unasked.forget()
}

// memo keeps what was made, and what of it was asked for lately.
type memo[K comparable, V any] struct {
	made, used map[K]V
}

func newMemo[K comparable, V any]() memo[K, V] { return memo[K, V]{map[K]V{}, map[K]V{}} }

func (m *memo[K, V]) get(k K, make func() V) V {
	v, ok := m.used[k]
	if !ok {
		if v, ok = m.made[k]; !ok {
			v = make()
		}
		m.used[k] = v
	}
	return v
}

// forget leaves what was asked for since the last time.
func (m *memo[K, V]) forget() {
	m.made = m.used
	m.used = map[K]V{}
}
