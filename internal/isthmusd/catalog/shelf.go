// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"maps"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// shelf is the resources of a part, for the proxies that get the same variant of
// each. One of them stands for all.
type shelf struct {
	part  resource.Part
	proxy *model.Proxy
	list  *variant
	items map[string]*variant
	set   *resource.Set
	// print is set's fingerprint: its part and the versions that it holds, added up.
	print uint64
	// asked counts, per attribute, the variants that asked for it.
	asked map[snapshot.Attribute]int
	// sorted, values and id are made of asked; sorted is nil when it changed.
	sorted []snapshot.Attribute
	values string
	id     string
}

// attributes that tell the shelf from others of its type, sorted.
func (s *shelf) attributes(x *snapshot.Snapshot) []snapshot.Attribute {
	s.summarize(x)
	return s.sorted
}

// identity is equal for shelves that serve the same proxies.
func (s *shelf) identity(x *snapshot.Snapshot) string {
	s.summarize(x)
	return s.id
}

func (s *shelf) summarize(x *snapshot.Snapshot) {
	if s.sorted != nil {
		return
	}
	s.sorted = slices.AppendSeq([]snapshot.Attribute{}, maps.Keys(s.asked))
	slices.SortFunc(s.sorted, snapshot.CompareAttributes)
	s.values = valuesOf(s.sorted, x, s.proxy)
	var b strings.Builder
	b.WriteByte(byte(s.part))
	for _, a := range s.sorted {
		b.WriteByte(byte(a.Kind))
		b.WriteString(a.Key)
		b.WriteByte(0)
	}
	s.id = b.String() + "\n" + s.values
}

// count notes that a variant which asks for attributes came (1) or went (-1).
func (s *shelf) count(as []snapshot.Attribute, n int) {
	for _, a := range as {
		before := s.asked[a]
		s.asked[a] = before + n
		if before+n == 0 {
			delete(s.asked, a)
		}
		if before == 0 || before+n == 0 {
			s.sorted = nil
		}
	}
}

// use makes v the shelf's variant in place of old; either may be nil.
func (s *shelf) use(c *Catalog, old, v *variant) {
	if old == v {
		return
	}
	if v != nil {
		v.users[s] = struct{}{}
		s.count(v.attributes, 1)
	}
	if old == nil {
		return
	}
	s.count(old.attributes, -1)
	delete(old.users, s)
	if len(old.users) == 0 {
		c.forget(old)
	}
}

// askAgain makes shelves ask for the attributes whose values are the Snapshot's as
// well as the proxy's. What was built for a proxy that answers otherwise now is dirty.
func (c *Catalog) askAgain(dirty map[*variant]struct{}) {
	stale := func(v *variant) {
		if _, ok := dirty[v]; !ok {
			dirty[v] = struct{}{}
			c.forget(v)
		}
	}
	for s := range c.shelves {
		before := s.values
		s.sorted = nil
		if s.summarize(c.snap); s.values == before {
			continue
		}
		stale(s.list)
		for _, v := range s.items {
			stale(v)
		}
	}
	c.moved = true
}

// newShelf builds all of a part for a proxy like which there was none.
func (c *Catalog) newShelf(part resource.Part, p *model.Proxy) (*shelf, error) {
	s := &shelf{
		part: part, proxy: p,
		items: map[string]*variant{}, asked: map[snapshot.Attribute]int{},
	}
	v, err := c.variant(item{part: part}, p, nil)
	if err != nil {
		return nil, err
	}
	s.use(c, nil, v)
	s.list = v
	for _, name := range v.names {
		c.resolve(s, item{part, name})
	}
	c.collect(s)
	c.shelves[s] = struct{}{}
	c.moved = true
	return s, nil
}

// dropShelf lets go of a shelf and of what only it used.
func (c *Catalog) dropShelf(s *shelf) {
	s.use(c, s.list, nil)
	for _, v := range s.items {
		s.use(c, v, nil)
	}
	delete(c.shelves, s)
	c.moved = true
}

// resolve finds or builds one resource of the shelf, and tells whether it is
// another than before.
func (c *Catalog) resolve(s *shelf, it item) bool {
	old := s.items[it.name]
	v, _ := c.variant(it, s.proxy, old) // its error is noted; last good bytes stay
	s.use(c, old, v)
	s.items[it.name] = v
	return old == nil || old.resource != v.resource
}

// refresh replaces the stale variants of a shelf, and its Set if that matters.
func (c *Catalog) refresh(s *shelf, stale map[*variant]struct{}) {
	anew := false // as when names come or go
	if _, ok := stale[s.list]; ok {
		anew = c.relist(s)
	}
	var changed []*resource.Resource
	for v := range stale {
		if v.name == "" || s.items[v.name] != v || !c.resolve(s, v.item) {
			continue
		}
		now := s.items[v.name].resource
		changed = append(changed, now)
		anew = anew || v.resource == nil || now == nil
	}
	switch {
	case anew:
		c.collect(s)
	case len(changed) > 0:
		c.replace(s, changed)
	}
	if s.sorted == nil {
		c.moved = true
	}
}

// relist renews the shelf's list of names.
func (c *Catalog) relist(s *shelf) bool {
	old := s.list
	v, err := c.variant(item{part: s.part}, s.proxy, old)
	if err != nil {
		return false
	}
	s.use(c, old, v)
	s.list = v
	if slices.Equal(old.names, v.names) {
		return false
	}
	wanted := make(map[string]struct{}, len(v.names))
	changed := false
	for _, name := range v.names {
		wanted[name] = struct{}{}
		if s.items[name] == nil {
			changed = c.resolve(s, item{s.part, name}) || changed
		}
	}
	for name, gone := range s.items {
		if _, ok := wanted[name]; !ok {
			s.use(c, gone, nil)
			delete(s.items, name)
			changed = true
		}
	}
	return changed
}

// collect makes the shelf's Set of all that it holds.
func (c *Catalog) collect(s *shelf) {
	list := make([]*resource.Resource, 0, len(s.items))
	s.print = uint64(s.part)
	for _, name := range s.list.names {
		if r := s.items[name].resource; r != nil {
			list = append(list, r)
			s.print += r.Version
		}
	}
	s.set = c.only(s.print, resource.NewSet(list))
}

// replace makes the shelf's next Set of its last one. One resource that changed
// must not cost more where there are many others.
func (c *Catalog) replace(s *shelf, changed []*resource.Resource) {
	for _, r := range changed {
		s.print += r.Version - s.set.Get(r.Name).Version
	}
	s.set = c.only(s.print, s.set.With(changed...))
}

// only makes Sets with equal content one. A fingerprint is the sum of versions, so
// that a change is known without the others.
func (c *Catalog) only(print uint64, set *resource.Set) *resource.Set {
	if known := c.sets[print]; known != nil && slices.Equal(known.List(), set.List()) {
		return known
	}
	c.sets[print] = set
	return set
}

// mergeShelves lets go of shelves whose proxies another serves as well, since the
// attribute that parted them is not asked for any more. It returns what stands
// for them now.
func (c *Catalog) mergeShelves() map[*shelf]*shelf {
	if !c.moved {
		return nil
	}
	seen, merged := map[string]*shelf{}, map[*shelf]*shelf{}
	for s := range c.shelves {
		if other := seen[s.identity(c.snap)]; other != nil {
			merged[s] = other
			continue
		}
		seen[s.identity(c.snap)] = s
	}
	for s := range merged {
		c.dropShelf(s)
	}
	return merged
}
