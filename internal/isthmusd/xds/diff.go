// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"slices"
	"sync"
	"weak"

	"google.golang.org/grpc/mem"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// keptDiffs bounds the cache: a revision makes one pair per type and class of
// proxies, and all streams of a class take it within moments.
const keptDiffs = 256

// diff is the step from one set to another, computed once and shared by all
// streams that make it.
type diff struct {
	// changed are resources of the new set that the old one lacks or has otherwise.
	changed []*resource.Resource
	// removed are resources of the old set that the new one lacks.
	removed []*resource.Resource
	// trials say whom changed may be sent to by now.
	trials trials

	payloads [numProtocols]struct {
		once  sync.Once
		bytes mem.BufferSlice
	}
}

// payload is changed, encoded for the protocol.
func (d *diff) payload(p Protocol) mem.BufferSlice {
	e := &d.payloads[p]
	e.once.Do(func() { e.bytes = encode(p, d.changed) })
	return e.bytes
}

func newDiff(from, to *resource.Set) *diff {
	a, b := from.List(), to.List()
	if len(a) == 0 {
		return &diff{changed: b}
	}
	d := &diff{}
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0] == b[0]:
			a, b = a[1:], b[1:]
		case a[0].Name < b[0].Name:
			d.removed, a = append(d.removed, a[0]), a[1:]
		case a[0].Name > b[0].Name:
			d.changed, b = append(d.changed, b[0]), b[1:]
		default:
			if a[0].Version != b[0].Version {
				d.changed = append(d.changed, b[0])
			}
			a, b = a[1:], b[1:]
		}
	}
	d.removed = append(d.removed, a...)
	d.changed = append(d.changed, b...)
	return d
}

// diffs is a cache of steps. Keys are weak, so that it keeps no old set alive.
type diffs struct {
	mu    sync.Mutex
	steps map[step]*pendingDiff
	order []step // oldest first
}

type step struct{ from, to weak.Pointer[resource.Set] }

// possible tells whether a stream may still make the step. What it holds of sets
// that are gone would otherwise live as long as the cache.
func (k step) possible() bool {
	return k.to.Value() != nil && (k.from == weak.Pointer[resource.Set]{} || k.from.Value() != nil)
}

type pendingDiff struct {
	once sync.Once
	diff *diff
}

func newDiffs() *diffs { return &diffs{steps: map[step]*pendingDiff{}} }

// between is the step from one set to the other; nil stands for the empty set.
func (c *diffs) between(from, to *resource.Set) *diff {
	if from == to {
		return &diff{}
	}
	p := c.pending(step{weak.Make(from), weak.Make(to)})
	p.once.Do(func() { p.diff = newDiff(from, to) })
	return p.diff
}

func (c *diffs) pending(k step) *pendingDiff {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.steps[k]; ok {
		return p
	}
	c.order = slices.DeleteFunc(c.order, func(old step) bool {
		if old.possible() {
			return false
		}
		delete(c.steps, old)
		return true
	})
	if len(c.order) >= keptDiffs {
		delete(c.steps, c.order[0])
		c.order = c.order[1:]
	}
	p := &pendingDiff{}
	c.steps[k] = p
	c.order = append(c.order, k)
	return p
}
