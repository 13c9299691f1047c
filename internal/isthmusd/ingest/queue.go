// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// ID names an object.
type ID struct{ Kind, Namespace, Name string }

func (id ID) String() string {
	if id.Namespace == "" {
		return id.Kind + " " + id.Name
	}
	return id.Kind + " " + id.Namespace + "/" + id.Name
}

// Object is what one object says: its rows, none when it's gone or says nothing.
type Object struct {
	Created time.Time
	Rows    []Row
}

// Queue gathers the newest state of changed objects until the next commit. It is
// bounded by the number of objects, and producers never wait.
type Queue struct {
	log  *slog.Logger
	wake chan struct{}

	mu       sync.Mutex
	pending  map[ID]Object
	waiting  map[string]struct{}
	problems map[string]string
	// alive is when each watch last heard from its server.
	alive map[string]time.Time
	now   func() time.Time
}

// stalledAfter is how long a watch may be silent. The API server sends a bookmark
// about once a minute, so one that is silent for longer has missed it.
const stalledAfter = 90 * time.Second

func newQueue(log *slog.Logger) *Queue {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Queue{
		log: log, wake: make(chan struct{}, 1), pending: map[ID]Object{},
		waiting: map[string]struct{}{}, problems: map[string]string{},
		alive: map[string]time.Time{}, now: time.Now,
	}
}

// Set delivers objects that belong together: no commit has only some of them.
func (q *Queue) Set(objects map[ID]Object) {
	if len(objects) == 0 {
		return
	}
	q.mu.Lock()
	maps.Copy(q.pending, objects)
	q.mu.Unlock()
	q.signal()
}

// Expect holds back all commits until the returned function is called, which may
// be done more than once.
func (q *Queue) Expect(what string) (synced func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting[what] = struct{}{}
	return func() {
		q.mu.Lock()
		delete(q.waiting, what)
		q.mu.Unlock()
		q.signal()
	}
}

// Report says what is wrong with an object, a file or a source; an empty problem
// takes the report back.
func (q *Queue) Report(what, problem string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if problem == "" {
		delete(q.problems, what)
		return
	}
	if q.problems[what] != problem {
		q.problems[what] = problem
		q.log.Warn("bad configuration, the last good one stays if there was one", "what", what, "problem", problem)
	}
}

// Alive notes that a watch has heard from its server: an object, a list, or a
// bookmark.
func (q *Queue) Alive(what string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.alive[what] = q.now()
}

// Stalled lists the watches that have been silent for too long. What they would
// say may be old news elsewhere: proxies are better served by another replica.
func (q *Queue) Stalled() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	var out []string
	for what, last := range q.alive {
		if q.now().Sub(last) > stalledAfter {
			out = append(out, what)
		}
	}
	slices.Sort(out)
	return out
}

// Problems that were reported and still hold.
func (q *Queue) Problems() map[string]string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return maps.Clone(q.problems)
}

// Waiting lists what has not synced yet.
func (q *Queue) Waiting() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Sorted(maps.Keys(q.waiting))
}

func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns what is pending, unless something has not synced.
func (q *Queue) take() (map[ID]Object, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) > 0 {
		return nil, false
	}
	batch := q.pending
	q.pending = map[ID]Object{}
	return batch, true
}
