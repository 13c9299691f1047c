// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// class is the proxies that get the same variant of everything. One of them
// stands for all.
type class struct {
	proxy *model.Proxy
	state *resource.State
	lists [resource.NumTypes]*variant
	items [resource.NumTypes]map[string]*variant
	// asked counts, per attribute, the variants that asked for it.
	asked map[snapshot.Attribute]int
	// sorted, values and id are made of asked; sorted is nil when it changed.
	sorted []snapshot.Attribute
	values string
	id     string
	// usedRound and usedAt say when a stream asked for it last.
	usedRound atomic.Uint64
	usedAt    atomic.Int64
}

func newClass(p *model.Proxy) *class {
	k := &class{proxy: p, asked: map[snapshot.Attribute]int{}}
	for t := range k.items {
		k.items[t] = map[string]*variant{}
	}
	return k
}

func (k *class) touch(c *Catalog) {
	k.usedRound.Store(c.round.Load())
	k.usedAt.Store(c.Now().UnixNano())
}

func (k *class) idle(round uint64, now time.Time) bool {
	return round-k.usedRound.Load() > idleRounds && now.Sub(time.Unix(0, k.usedAt.Load())) > idleTime
}

// inherit takes over how lately another class was used.
func (k *class) inherit(other *class) {
	k.usedRound.Store(max(k.usedRound.Load(), other.usedRound.Load()))
	k.usedAt.Store(max(k.usedAt.Load(), other.usedAt.Load()))
}

// attributes that tell the class from others, sorted.
func (k *class) attributes() []snapshot.Attribute {
	k.summarize()
	return k.sorted
}

// identity is equal for classes that serve the same proxies.
func (k *class) identity() string {
	k.summarize()
	return k.id
}

func (k *class) summarize() {
	if k.sorted != nil {
		return
	}
	k.sorted = slices.AppendSeq([]snapshot.Attribute{}, maps.Keys(k.asked))
	slices.SortFunc(k.sorted, snapshot.CompareAttributes)
	k.values = valuesOf(k.sorted, k.proxy)
	var b strings.Builder
	for _, a := range k.sorted {
		b.WriteByte(byte(a.Kind))
		b.WriteString(a.Key)
		b.WriteByte(0)
	}
	k.id = b.String() + "\n" + k.values
}

// count notes that a variant which asks for an attribute came (1) or went (-1).
func (k *class) count(as []snapshot.Attribute, n int) {
	for _, a := range as {
		before := k.asked[a]
		k.asked[a] = before + n
		if before+n == 0 {
			delete(k.asked, a)
		}
		if before == 0 || before+n == 0 {
			k.sorted = nil
		}
	}
}

// use makes v the class's variant in place of old; either may be nil.
func (k *class) use(c *Catalog, old, v *variant) {
	if old == v {
		return
	}
	if v != nil {
		v.users[k] = struct{}{}
		k.count(v.attributes, 1)
	}
	if old == nil {
		return
	}
	k.count(old.attributes, -1)
	delete(old.users, k)
	if len(old.users) == 0 {
		c.forget(old)
	}
}

// fill builds everything for a new class.
func (c *Catalog) fill(k *class) error {
	for t := range resource.NumTypes {
		v, err := c.variant(item{kind: t}, k.proxy, nil)
		if err != nil {
			return err
		}
		k.use(c, nil, v)
		k.lists[t] = v
		for _, name := range v.names {
			c.resolve(k, item{t, name})
		}
	}
	c.newState(k, [resource.NumTypes]bool{true, true, true, true, true})
	return nil
}

// resolve finds or builds one resource of the class, and tells whether it is
// another than before.
func (c *Catalog) resolve(k *class, it item) bool {
	old := k.items[it.kind][it.name]
	v, _ := c.variant(it, k.proxy, old) // its error is noted; last good bytes stay
	k.use(c, old, v)
	k.items[it.kind][it.name] = v
	return old == nil || old.resource != v.resource
}

// refresh replaces the stale variants of a class.
func (c *Catalog) refresh(k *class, stale map[*variant]struct{}) {
	var changed [resource.NumTypes]bool
	for t := range resource.NumTypes {
		if _, ok := stale[k.lists[t]]; ok {
			changed[t] = c.relist(k, t)
		}
	}
	for v := range stale {
		if v.name != "" && k.items[v.kind][v.name] == v {
			changed[v.kind] = c.resolve(k, v.item) || changed[v.kind]
		}
	}
	c.newState(k, changed)
}

// relist renews the class's list of names of a type.
func (c *Catalog) relist(k *class, t resource.Type) bool {
	old := k.lists[t]
	v, err := c.variant(item{kind: t}, k.proxy, old)
	if err != nil && v == nil {
		return false
	}
	k.use(c, old, v)
	k.lists[t] = v
	if slices.Equal(old.names, v.names) {
		return false
	}
	wanted := make(map[string]struct{}, len(v.names))
	changed := false
	for _, name := range v.names {
		wanted[name] = struct{}{}
		if k.items[t][name] == nil {
			changed = c.resolve(k, item{t, name}) || changed
		}
	}
	for name, gone := range k.items[t] {
		if _, ok := wanted[name]; !ok {
			k.use(c, gone, nil)
			delete(k.items[t], name)
			changed = true
		}
	}
	return changed
}

// newState gives the class a State with new Sets for the changed types, unless
// they turn out equal. Sets with equal content are one, also between classes.
func (c *Catalog) newState(k *class, changed [resource.NumTypes]bool) {
	next := resource.State{Revision: c.snap.Revision(), Epoch: c.snap.Config().Epoch}
	if k.state != nil {
		next.Sets = k.state.Sets
	}
	for t := range resource.NumTypes {
		if changed[t] {
			next.Sets[t] = c.set(k, t)
		}
	}
	if k.state != nil && next.Sets == k.state.Sets && next.Epoch == k.state.Epoch {
		return
	}
	k.state = &next
}

func (c *Catalog) set(k *class, t resource.Type) *resource.Set {
	list := make([]*resource.Resource, 0, len(k.items[t]))
	for _, name := range k.lists[t].names {
		if r := k.items[t][name].resource; r != nil {
			list = append(list, r)
		}
	}
	print := fingerprint(t, list)
	if s := c.sets[print]; s != nil && slices.Equal(s.List(), list) {
		return s
	}
	s := resource.NewSet(list)
	c.sets[print] = s
	return s
}

func fingerprint(t resource.Type, list []*resource.Resource) uint64 {
	h := uint64(t) + 14695981039346656037
	for _, r := range list {
		h = (h ^ r.Version) * 1099511628211
	}
	return h
}

// drop lets go of a class and of what only it used.
func (c *Catalog) drop(k *class) {
	for t := range resource.NumTypes {
		if k.lists[t] != nil {
			k.use(c, k.lists[t], nil)
		}
		for _, v := range k.items[t] {
			k.use(c, v, nil)
		}
	}
	delete(c.classes, k)
}

// published is what State needs, immutable.
type published struct {
	signatures []*signature[*entry]
}

type entry struct {
	class *class
	state *resource.State
}

func (p *published) find(x *model.Proxy) *entry {
	for _, s := range p.signatures {
		if e, ok := s.find(x); ok {
			return e
		}
	}
	return nil
}

// publish shows the classes as they are now, and lets go of unused Sets.
func (c *Catalog) publish() {
	pub := &published{}
	used := map[*resource.Set]struct{}{}
	for k := range c.classes {
		as := k.attributes()
		i := slices.IndexFunc(pub.signatures, func(s *signature[*entry]) bool { return slices.Equal(s.attributes, as) })
		if i < 0 {
			i = len(pub.signatures)
			pub.signatures = append(pub.signatures, &signature[*entry]{as, map[string]*entry{}})
		}
		pub.signatures[i].byValues[k.values] = &entry{k, k.state}
		for _, s := range k.state.Sets {
			used[s] = struct{}{}
		}
	}
	maps.DeleteFunc(c.sets, func(_ uint64, s *resource.Set) bool {
		_, ok := used[s]
		return !ok
	})
	c.published.Store(pub)
	c.Metrics.Classes.Set(float64(len(c.classes)))
}
