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
	s.set = c.setOf(s)
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
	changed := false
	if _, ok := stale[s.list]; ok {
		changed = c.relist(s)
	}
	for v := range stale {
		if v.name != "" && s.items[v.name] == v {
			changed = c.resolve(s, v.item) || changed
		}
	}
	if changed {
		s.set = c.setOf(s)
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

// setOf makes the shelf's Set. Sets with equal content are one.
func (c *Catalog) setOf(s *shelf) *resource.Set {
	list := make([]*resource.Resource, 0, len(s.items))
	for _, name := range s.list.names {
		if r := s.items[name].resource; r != nil {
			list = append(list, r)
		}
	}
	print := fingerprint(s.part, list)
	if set := c.sets[print]; set != nil && slices.Equal(set.List(), list) {
		return set
	}
	set := resource.NewSet(list)
	c.sets[print] = set
	return set
}

func fingerprint(p resource.Part, list []*resource.Resource) uint64 {
	h := uint64(p) + 14695981039346656037
	for _, r := range list {
		h = (h ^ r.Version) * 1099511628211
	}
	return h
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
