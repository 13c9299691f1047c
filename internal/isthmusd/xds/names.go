// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"hash/maphash"
	"iter"
	"sync"
	"weak"
)

// fewNames is how many names a subscription keeps to itself before it looks for
// others that have the same.
const fewNames = 32

// nameSet is an immutable set of names that streams share: proxies of a class
// ask for the same thousands of endpoints.
type nameSet struct {
	names map[string]struct{}
	hash  uint64
}

// names finds sets by content. It keeps none alive.
type names struct {
	seed maphash.Seed
	mu   sync.Mutex
	sets map[uint64]weak.Pointer[nameSet]
}

func newNames() *names {
	return &names{seed: maphash.MakeSeed(), sets: map[uint64]weak.Pointer[nameSet]{}}
}

// subscription is what a client asks for by name: a shared set, and what this
// client has more or less. The zero value is empty.
type subscription struct {
	shared     *nameSet
	more, less map[string]struct{}
}

func (s *subscription) has(name string) bool {
	if _, ok := s.more[name]; ok {
		return true
	}
	if s.shared == nil {
		return false
	}
	if _, gone := s.less[name]; gone {
		return false
	}
	_, ok := s.shared.names[name]
	return ok
}

func (s *subscription) add(name string) {
	if s.has(name) {
		return
	}
	if _, gone := s.less[name]; gone {
		delete(s.less, name)
		return
	}
	if s.more == nil {
		s.more = map[string]struct{}{}
	}
	s.more[name] = struct{}{}
}

func (s *subscription) remove(name string) {
	if !s.has(name) {
		return
	}
	if _, own := s.more[name]; own {
		delete(s.more, name)
		return
	}
	if s.less == nil {
		s.less = map[string]struct{}{}
	}
	s.less[name] = struct{}{}
}

func (s *subscription) len() int {
	n := len(s.more) - len(s.less)
	if s.shared != nil {
		n += len(s.shared.names)
	}
	return n
}

// all yields every name, in no order.
func (s *subscription) all() iter.Seq[string] {
	return func(yield func(string) bool) {
		for n := range s.more {
			if !yield(n) {
				return
			}
		}
		if s.shared == nil {
			return
		}
		for n := range s.shared.names {
			if _, gone := s.less[n]; !gone && !yield(n) {
				return
			}
		}
	}
}

// share replaces what the subscription has for itself, if that is much, by a set
// that others use too.
func (ns *names) share(s *subscription) {
	if len(s.more)+len(s.less) <= fewNames {
		return
	}
	hash := uint64(0)
	if s.shared != nil {
		hash = s.shared.hash
	}
	for _, m := range []map[string]struct{}{s.more, s.less} {
		for n := range m {
			hash ^= maphash.String(ns.seed, n)
		}
	}
	*s = subscription{shared: ns.find(s, hash)}
}

// known finds a set of exactly these names, which are distinct, or nil.
func (ns *names) known(list []string) *nameSet {
	if len(list) <= fewNames {
		return nil
	}
	hash := uint64(0)
	for _, n := range list {
		hash ^= maphash.String(ns.seed, n)
	}
	ns.mu.Lock()
	set := ns.sets[hash].Value()
	ns.mu.Unlock()
	if set == nil || len(set.names) != len(list) {
		return nil
	}
	for _, n := range list {
		if _, ok := set.names[n]; !ok {
			return nil
		}
	}
	return set
}

func (ns *names) find(s *subscription, hash uint64) *nameSet {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if set := ns.sets[hash].Value(); set != nil && s.equals(set) {
		return set
	}
	set := &nameSet{names: make(map[string]struct{}, s.len()), hash: hash}
	for n := range s.all() {
		set.names[n] = struct{}{}
	}
	for h, w := range ns.sets {
		if w.Value() == nil {
			delete(ns.sets, h)
		}
	}
	ns.sets[hash] = weak.Make(set)
	return set
}

func (s *subscription) equals(set *nameSet) bool {
	if s.len() != len(set.names) {
		return false
	}
	for n := range set.names {
		if !s.has(n) {
			return false
		}
	}
	return true
}
