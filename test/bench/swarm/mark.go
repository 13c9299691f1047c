// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Mark is a change, or a numbered series of changes, whose arrival is timed: a
// text in resources of some types.
type Mark struct {
	text []byte
	// need are the types in which it must be seen.
	need uint32
	// begun is when each change was made, in nanoseconds.
	begun []atomic.Int64
	// left counts down the arrivals that are still to come.
	left atomic.Int64
	done chan struct{}
	mu   sync.Mutex
	lags []float64
}

// Watch begins to look for a text that each of so many proxies will see in all of
// the types.
func (s *Swarm) Watch(text string, proxies int, in ...Type) *Mark {
	return s.watch(text, 1, proxies, in)
}

// WatchSeries begins to look for a series of changes: addresses that begin with
// the prefix and end with the number of the change, as Address writes them.
func (s *Swarm) WatchSeries(prefix string, changes, proxies int) *Mark {
	return s.watch(prefix, changes, proxies, []Type{Endpoints})
}

// Address is prefix.<number/256>.<number%256>.
func Address(prefix string, number int) string {
	return fmt.Sprintf("%s%d.%d", prefix, number/256, number%256)
}

func (s *Swarm) watch(text string, changes, proxies int, in []Type) *Mark {
	m := &Mark{text: []byte(text), begun: make([]atomic.Int64, changes), done: make(chan struct{})}
	for _, t := range in {
		m.need |= 1 << s.carrier(t)
	}
	m.left.Store(int64(changes) * int64(proxies))
	s.mark.Store(m)
	return m
}

// carrier is the type in which a resource comes: routes may come as hosts.
func (s *Swarm) carrier(t Type) Type {
	if t == Routes && s.o.Protocol == Own {
		return Hosts
	}
	return t
}

// Unwatch ends the looking.
func (s *Swarm) Unwatch() { s.mark.Store(nil) }

// Begin notes that the change is made now.
func (m *Mark) Begin(change int) { m.begun[change].Store(time.Now().UnixNano()) }

// Wait waits until all have seen it.
func (m *Mark) Wait(limit time.Duration) error {
	select {
	case <-m.done:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("a change is still unseen %d times after %v", m.left.Load(), limit)
	}
}

// Lags are the seconds from each change to each acknowledgement.
func (m *Mark) Lags() []float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]float64(nil), m.lags...)
}

// sight is what one proxy has seen of a mark.
type sight struct {
	of *Mark
	// types of a single change, numbers of a series.
	types   uint32
	changes set
	// fresh are the changes that the message under way brought; they count when it
	// is acknowledged.
	fresh []uint32
}

// look searches a resource for the mark.
func (g *sight) look(m *Mark, t Type, resource []byte) {
	if g.of != m {
		*g = sight{of: m}
	}
	if m.need&(1<<t) == 0 {
		return
	}
	if len(m.begun) == 1 {
		if g.types&(1<<t) == 0 && bytes.Contains(resource, m.text) {
			if g.types |= 1 << t; g.types == m.need {
				g.fresh = append(g.fresh, 0)
			}
		}
		return
	}
	for {
		i := bytes.Index(resource, m.text)
		if i < 0 {
			return
		}
		resource = resource[i+len(m.text):]
		if n, ok := number(resource); ok && int(n) < len(m.begun) && g.changes.add(n) {
			g.fresh = append(g.fresh, n)
		}
	}
}

// number reads the end of an Address.
func number(b []byte) (uint32, bool) {
	var parts [2]int
	for i := range parts {
		n := 0
		for n < len(b) && b[n] >= '0' && b[n] <= '9' {
			n++
		}
		v, err := strconv.Atoi(string(b[:n]))
		if err != nil || i == 0 && (n == len(b) || b[n] != '.') {
			return 0, false
		}
		parts[i] = v
		b = b[min(n+1, len(b)):]
	}
	return uint32(parts[0]*256 + parts[1]), true
}

// acknowledged counts what the message brought.
func (g *sight) acknowledged() {
	if len(g.fresh) == 0 {
		return
	}
	m, now := g.of, time.Now().UnixNano()
	m.mu.Lock()
	for _, c := range g.fresh {
		m.lags = append(m.lags, float64(now-m.begun[c].Load())/1e9)
	}
	m.mu.Unlock()
	if m.left.Add(-int64(len(g.fresh))) == 0 {
		close(m.done)
	}
	g.fresh = g.fresh[:0]
}
