// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"time"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// endpointWindow is how many endpoint responses may be under way; of every
// other type it is one.
const endpointWindow = 4

// reason says why a name must be answered.
type reason uint8

const (
	// asked by the client; not sent if it already has the version.
	asked reason = iota
	// owed: asked after a cluster that needs it was sent; sent whatever the client has.
	owed
	// resent: nobody asked, yet a cluster that needs it was sent.
	resent
	// released: was held back until clusters were acknowledged.
	released
)

// Mark is a state of the configuration.
type Mark struct {
	Revision uint64 `json:"revision"`
	Epoch    string `json:"epoch"`
}

// flight is a response that the client has not answered yet.
type flight struct {
	nonce  string
	sentAt time.Time
	// state that it brings the client to, or one step towards it.
	state   *resource.State
	added   []*resource.Resource
	removed []string
	// holds are services whose new endpoints wait for these clusters.
	holds map[string]struct{}
	// before is the set that the flight began from; step the shared step that it
	// takes, nil when it is no step of a whole class.
	before *resource.Set
	step   *diff
	// late flights block nothing any more.
	late bool
	// versions stand for added once the flight is let go: see behind.go.
	versions []uint64
	gone     bool
	// again flights bring what came with a rejection, restores among them what the
	// client has in place of what it rejected.
	again, restores bool
	// whole flights leave nothing out: what they do not bring is gone.
	whole bool
}

// watch is one type on one stream. What the client has is `sent` restricted to
// what it wants, but for the stream's leaving clusters and held endpoints.
type watch struct {
	typ      resource.Type
	active   bool
	wildcard bool
	names    subscription
	// onDemand watches have of the wildcard only what is in names: what was
	// volunteered last, what they ask for, and what they came with.
	onDemand    bool
	volunteered *resource.Set
	// tables decide what is wanted, of virtual hosts.
	tables tables
	// have is what a reconnecting delta client claims; nil once it is used.
	have map[string]uint64
	// claimed is the version that a state-of-the-world client came with.
	claimed string
	sent    *resource.Set
	due     map[string]reason
	// answer is true when a response is owed though it may be empty.
	answer  bool
	nonce   string
	flights []flight
	// trialUntil is when a step goes at the latest that others try first; zero
	// when none waits.
	trialUntil time.Time
	// refused are what the client rejected and has not replaced; suspects are those
	// of them that are not proven guilty: see suspect.go.
	refused  map[string]rejection
	suspects [][]suspect
	// innocent counts the suspects' parts that were accepted; pardoned is how many
	// when what a host may depend on was last waited for.
	innocent int
	pardoned map[string]int
	// unremoved are removals that came with a rejection.
	unremoved []string
	// examined is the step whose trial waits for the suspects.
	examined *diff
	// resumed is true when the client came with something from a former stream.
	resumed bool
	acked   Mark
	// settled is the newest revision to which the client has answered in full,
	// though it may have rejected some of it.
	settled uint64

	rejections int
	lastError  string
}

// open begins the watch.
func (w *watch) open() {
	w.active = true
	w.due = map[string]reason{}
	w.refused = map[string]rejection{}
}

// wants tells whether the client subscribes to the name.
func (w *watch) wants(name string) bool {
	if w.typ == resource.VirtualHost {
		return w.tables.has(name)
	}
	return w.wildcard && !w.onDemand || w.names.has(name)
}

// expire marks flights late whose patience is over, and tells the newest one.
func (w *watch) expire(now time.Time, patience time.Duration) *flight {
	var newest *flight
	for i := range w.flights {
		f := &w.flights[i]
		if !f.late && !now.Before(f.sentAt.Add(patience)) {
			f.late = true
			newest = f
		}
	}
	return newest
}

// blocking is the number of flights that hold up the next.
func (w *watch) blocking() int {
	n := 0
	for _, f := range w.flights {
		if !f.late {
			n++
		}
	}
	return n
}

// maySend tells whether another response may go.
func (w *watch) maySend() bool {
	if w.typ == resource.Endpoint {
		return w.blocking() < endpointWindow
	}
	return w.blocking() == 0
}

// oldest is when the first blocking flight was sent.
func (w *watch) oldest() (time.Time, bool) {
	for _, f := range w.flights {
		if !f.late {
			return f.sentAt, true
		}
	}
	return time.Time{}, false
}

// landed takes the answered flight, and those before it, out of the air.
func (w *watch) landed(nonce string) []flight {
	for i, f := range w.flights {
		if f.nonce == nonce {
			out := w.flights[:i+1]
			w.flights = append([]flight(nil), w.flights[i+1:]...)
			return out
		}
	}
	return nil
}

// settle handles the answer to a response.
func (s *stream) settle(w *watch, r request) {
	done := w.landed(r.nonce)
	if len(done) == 0 {
		return
	}
	for i := range done {
		done[i].recall(w.sent)
	}
	last := done[len(done)-1]
	for _, f := range done[:len(done)-1] {
		s.arrived(w, f)
	}
	if r.refusal == "" {
		delete(w.refused, "")
		s.arrived(w, last)
		s.server.metrics.acks.WithLabelValues(shortName(w.typ)).Inc()
	} else {
		s.refuse(w, last, r.refusal)
		s.server.metrics.rejects.WithLabelValues(shortName(w.typ)).Inc()
		s.log.Info("Proxy rejected configuration", "type", shortName(w.typ), "resources", len(last.added), "error", r.refusal)
	}
	s.acquit(w)
	if w.typ == resource.Cluster && !last.late && last.state != nil {
		// A rejection opens the gate too: Envoy took the good ones, and one bad
		// cluster must not freeze a proxy's routes.
		s.opened = last.state
	}
}

// arrived notes that the client accepted all of a flight.
func (s *stream) arrived(w *watch, f flight) {
	w.accept(f)
	s.pass(f)
	if f.again && !f.restores {
		w.innocent++
	}
	if w.typ != resource.Route {
		return
	}
	for _, r := range f.added {
		s.watches[resource.VirtualHost].tables.took(r.Name)
	}
}

var shortNames = [resource.NumTypes]string{"cds", "eds", "lds", "rds", "vhds", "sds"}

// shortName is a type as metrics and people know it.
func shortName(t resource.Type) string { return shortNames[t] }
