// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package catalog keeps what every proxy should have, built once for all
// proxies that get the same bytes.
//
//	item      a resource by part and name, or the list of a part's names
//	variant   an item as built for proxies with certain attributes; it knows
//	          what was read (to be rebuilt) and which attributes (to be shared)
//	shelf     the resources of a part, for proxies for which each of them has the
//	          same variant: one Set
//	class     proxies with the same shelves: one State, assembled of their Sets
//
// Update takes a commit: the variants that read something changed are built
// again, shelves that hold them get a new Set, their classes a new State;
// everything else keeps its pointers. State finds a proxy's shelves by its
// attributes; what nobody asked for before is built then, once however many ask.
package catalog

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// Builder translates. It must be a pure function of what it reads through the
// View; the View is for one call only.
type Builder interface {
	// Names lists a part of what the proxy should have.
	Names(v *snapshot.View, p resource.Part) ([]string, error)
	// Build makes one of them; a nil message means that there is no such
	// resource.
	Build(v *snapshot.View, p resource.Part, name string) (proto.Message, resource.Upstream, error)
	// Compose joins the bytes of a route table and of its virtual hosts.
	Compose(table *resource.Resource, hosts []*resource.Resource) []byte
}

// ErrNotReady is returned until every source of configuration has synced.
var ErrNotReady = errors.New("configuration has not synced yet")

// A class that no stream asked for is let go when it was passed over in so many
// rounds and for so long.
const (
	idleRounds = 16
	idleTime   = 2 * time.Minute
)

// Options of a Catalog.
type Options struct {
	Builder Builder
	Log     *slog.Logger
	Metrics *Metrics
	// Now is the clock; time.Now but in tests.
	Now func() time.Time
}

// Catalog implements xds.Source.
type Catalog struct {
	Options
	// published is what State reads without a lock; nil until the first Update.
	published atomic.Pointer[published]
	// round counts the times that watchers were told.
	round atomic.Uint64

	watch    sync.Mutex
	watchers map[chan<- struct{}]struct{}

	// mu guards all below: one Update or new class at a time.
	mu       sync.Mutex
	snap     *snapshot.Snapshot
	families map[item]*family
	byRead   map[snapshot.Read]map[*variant]struct{}
	shelves  map[*shelf]struct{}
	classes  map[shelves]*class
	sets     map[uint64]*resource.Set
	assembly assembly
	problems map[item]error
	checker  *checker
	// moved is set when shelves came, went, or serve other proxies.
	moved bool
}

// New returns an empty Catalog, which is ready after its first Update.
func New(o Options) *Catalog {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	return &Catalog{
		Options:  o,
		watchers: map[chan<- struct{}]struct{}{},
		families: map[item]*family{},
		byRead:   map[snapshot.Read]map[*variant]struct{}{},
		shelves:  map[*shelf]struct{}{},
		classes:  map[shelves]*class{},
		sets:     map[uint64]*resource.Set{},
		assembly: newAssembly(o.Builder),
		problems: map[item]error{},
		checker:  newChecker(),
	}
}

// Ready is false until the first Update.
func (c *Catalog) Ready() bool { return c.published.Load() != nil }

// Watch sends to notify, without blocking, after each Update, also when no State
// changed: a proxy's own pod may have, and with it the class. The channel should
// have room for one.
func (c *Catalog) Watch(notify chan<- struct{}) (stop func()) {
	c.watch.Lock()
	defer c.watch.Unlock()
	c.watchers[notify] = struct{}{}
	return func() {
		c.watch.Lock()
		defer c.watch.Unlock()
		delete(c.watchers, notify)
	}
}

func (c *Catalog) tellWatchers() {
	c.round.Add(1)
	c.watch.Lock()
	defer c.watch.Unlock()
	for w := range c.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

// State is what the proxy should have now. It's the same pointer for all
// proxies of a class as long as nothing of it changed.
func (c *Catalog) State(p *model.Proxy) (*resource.State, error) {
	pub := c.published.Load()
	if pub == nil {
		return nil, ErrNotReady
	}
	if e := pub.find(p); e != nil {
		e.class.touch(c)
		return e.state, nil
	}
	return c.newClass(p)
}

// Update takes over a commit. Updates come from one goroutine, in order.
func (c *Catalog) Update(s *snapshot.Snapshot, changes snapshot.Changes) {
	start := c.Now()
	c.mu.Lock()
	c.snap = s
	dirty := c.dirty(changes)
	if snapshot.ChangesAnswers(changes) {
		c.askAgain(dirty)
	}
	c.rebuild(dirty)
	c.mu.Unlock()
	c.Metrics.Updates.Observe(c.Now().Sub(start).Seconds())
	c.tellWatchers()
}

// dirty takes out of the catalog the variants that read something changed.
func (c *Catalog) dirty(changes snapshot.Changes) map[*variant]struct{} {
	out := map[*variant]struct{}{}
	for r := range changes {
		for v := range c.byRead[r] {
			out[v] = struct{}{}
		}
	}
	for v := range out {
		c.forget(v)
	}
	return out
}

// rebuild gives the shelves of dirty variants new ones and, where that matters,
// a new Set, and their classes a new State.
func (c *Catalog) rebuild(dirty map[*variant]struct{}) {
	work := map[*shelf]map[*variant]struct{}{}
	for v := range dirty {
		for s := range v.users {
			if work[s] == nil {
				work[s] = map[*variant]struct{}{}
			}
			work[s][v] = struct{}{}
		}
	}
	for s, stale := range work {
		c.refresh(s, stale)
	}
	c.reclass(c.mergeShelves())
	c.dropIdle()
	changed := c.moved || c.published.Load() == nil
	for of, k := range c.classes {
		changed = c.restate(of, k) || changed
	}
	c.assembly.forget()
	if changed {
		c.publish()
		c.forgetSets()
	}
}

// Problem is a resource that could not be built; proxies keep its last good
// version, if there was one.
type Problem struct {
	Type  string `json:"type"`
	Name  string `json:"name"`
	Error string `json:"error"`
}

// Stats of the catalog, for people.
type Stats struct {
	Revision  uint64    `json:"revision"`
	Classes   int       `json:"classes"`
	Shelves   int       `json:"shelves"`
	Resources int       `json:"resources"`
	Reads     int       `json:"reads"`
	Problems  []Problem `json:"problems"`
}

// Stats tells what the catalog holds and what it could not build.
func (c *Catalog) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := Stats{Classes: len(c.classes), Shelves: len(c.shelves), Reads: len(c.byRead), Problems: []Problem{}}
	if c.snap != nil {
		out.Revision = c.snap.Revision()
	}
	for _, f := range c.families {
		out.Resources += f.len()
	}
	for it, err := range c.problems {
		out.Problems = append(out.Problems, Problem{it.part.Type().URL(), it.name, err.Error()})
	}
	sortProblems(out.Problems)
	return out
}
