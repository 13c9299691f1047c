// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// shelves are one shelf per part.
type shelves [resource.NumParts]*shelf

// class is the proxies with the same shelves: one State.
type class struct {
	state *resource.State
	// usedRound and usedAt say when a stream asked for it last.
	usedRound atomic.Uint64
	usedAt    atomic.Int64
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

// reclass gives classes of merged shelves those that stand for them now.
func (c *Catalog) reclass(merged map[*shelf]*shelf) {
	if len(merged) == 0 {
		return
	}
	for before, k := range maps.Clone(c.classes) {
		now := before
		for part, s := range now {
			if other := merged[s]; other != nil {
				now[part] = other
			}
		}
		if now == before {
			continue
		}
		delete(c.classes, before)
		if other := c.classes[now]; other != nil {
			other.inherit(k)
			continue
		}
		c.classes[now] = k
	}
}

// dropIdle lets go of classes that nobody asks for, and of shelves without one.
func (c *Catalog) dropIdle() {
	now, round := c.Now(), c.round.Load()
	used := make(map[*shelf]struct{}, len(c.shelves))
	for of, k := range c.classes {
		if k.idle(round, now) {
			delete(c.classes, of)
			c.moved = true
			continue
		}
		for _, s := range of {
			used[s] = struct{}{}
		}
	}
	for s := range c.shelves {
		if _, ok := used[s]; !ok {
			c.dropShelf(s)
		}
	}
}

// restate gives a class a new State if a Set or the epoch is another.
func (c *Catalog) restate(of shelves, k *class) bool {
	next := resource.State{Revision: c.snap.Revision(), Epoch: c.snap.Config().Epoch, Sets: c.assembly.sets(of)}
	next.Unasked = c.assembly.withoutAsking(next.Sets)
	if k.state != nil && next.Sets == k.state.Sets && next.Epoch == k.state.Epoch {
		return false
	}
	k.state = &next
	return true
}

// newClass builds what there is not yet for a proxy.
func (c *Catalog) newClass(p *model.Proxy) (*resource.State, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	pub := c.published.Load()
	if e := pub.find(p); e != nil { // somebody was faster
		e.class.touch(c)
		return e.state, nil
	}
	var of shelves
	for part := range resource.NumParts {
		if of[part] = pub.shelf(part, p); of[part] != nil {
			continue
		}
		s, err := c.newShelf(part, p)
		if err != nil {
			return nil, err // shelves without a class go with the next Update
		}
		of[part] = s
	}
	k := &class{}
	k.touch(c)
	c.restate(of, k)
	c.classes[of] = k
	c.publish()
	return k.state, nil
}

// signatures index shelves by the attributes of the proxies that they serve.
type signatures [resource.NumParts][]*signature[*shelf]

// published is what State needs, immutable.
type published struct {
	snap       *snapshot.Snapshot
	signatures signatures
	classes    map[shelves]entry
}

type entry struct {
	class *class
	state *resource.State
}

func (p *published) shelf(part resource.Part, x *model.Proxy) *shelf {
	for _, s := range p.signatures[part] {
		if found, ok := s.find(p.snap, x); ok {
			return found
		}
	}
	return nil
}

func (p *published) find(x *model.Proxy) *entry {
	var of shelves
	for part := range resource.NumParts {
		if of[part] = p.shelf(part, x); of[part] == nil {
			return nil
		}
	}
	if e, ok := p.classes[of]; ok {
		return &e
	}
	return nil
}

// publish shows the classes as they are now.
func (c *Catalog) publish() {
	pub := &published{snap: c.snap, classes: make(map[shelves]entry, len(c.classes))}
	if last := c.published.Load(); last != nil && !c.moved {
		pub.signatures = last.signatures
	} else {
		pub.signatures = c.sign()
	}
	for of, k := range c.classes {
		pub.classes[of] = entry{k, k.state}
	}
	c.published.Store(pub)
	c.moved = false
	c.Metrics.Classes.Set(float64(len(c.classes)))
}

// sign indexes the shelves by the attributes of the proxies that they serve.
func (c *Catalog) sign() signatures {
	var out signatures
	for s := range c.shelves {
		list := &out[s.part]
		as := s.attributes(c.snap)
		i := slices.IndexFunc(*list, func(g *signature[*shelf]) bool { return slices.Equal(g.attributes, as) })
		if i < 0 {
			i = len(*list)
			*list = append(*list, &signature[*shelf]{as, map[string]*shelf{}})
		}
		(*list)[i].byValues[s.values] = s
	}
	return out
}

// forgetSets lets go of Sets that no class shows any more.
func (c *Catalog) forgetSets() {
	if len(c.sets) <= 2*len(c.shelves) {
		return
	}
	used := make(map[*resource.Set]struct{}, len(c.shelves))
	for s := range c.shelves {
		used[s.set] = struct{}{}
	}
	maps.DeleteFunc(c.sets, func(_ uint64, s *resource.Set) bool {
		_, ok := used[s]
		return !ok
	})
}
