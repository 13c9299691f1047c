// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package swarm

import "sync"

// names gives texts numbers, so that what a proxy knows of thousands of resources
// is a few kilobytes.
type names struct {
	mu  sync.RWMutex
	ids map[string]uint32
	all []string
}

func newNames() *names { return &names{ids: map[string]uint32{}} }

func (n *names) id(b []byte) uint32 {
	n.mu.RLock()
	id, ok := n.ids[string(b)]
	n.mu.RUnlock()
	if ok {
		return id
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if id, ok := n.ids[string(b)]; ok {
		return id
	}
	id = uint32(len(n.all))
	n.ids[string(b)] = id
	n.all = append(n.all, string(b))
	return id
}

func (n *names) text(id uint32) string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.all[id]
}

// set is a set of small numbers.
type set []uint64

// add tells whether the number was not there.
func (s *set) add(i uint32) bool {
	for len(*s) <= int(i/64) {
		*s = append(*s, 0)
	}
	had := s.has(i)
	(*s)[i/64] |= 1 << (i % 64)
	return !had
}

func (s *set) remove(i uint32) {
	if s.has(i) {
		(*s)[i/64] &^= 1 << (i % 64)
	}
}

func (s set) has(i uint32) bool { return int(i/64) < len(s) && s[i/64]>>(i%64)&1 == 1 }

func (s set) each(f func(uint32)) {
	for w, x := range s {
		for i := 0; x>>i != 0 && i < 64; i++ {
			if x>>i&1 == 1 {
				f(uint32(w*64 + i))
			}
		}
	}
}

// held is the versions of what a proxy has, by its name's number; 0 is none.
type held []uint32

// put notes a version and tells whether it differs from the one before.
func (h *held) put(name, version uint32) bool {
	for len(*h) <= int(name) {
		*h = append(*h, 0)
	}
	differs := (*h)[name] != version+1
	(*h)[name] = version + 1
	return differs
}

func (h held) drop(name uint32) {
	if int(name) < len(h) {
		h[name] = 0
	}
}
