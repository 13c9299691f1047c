// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"bytes"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// fewSuspects are sent again each alone; more are halved first.
const fewSuspects = 8

// rejection is a resource that a client rejected, and what it has instead. A
// rejection names no resource in a field of its own, so what was rejected
// together is sent to that client again in ever smaller parts, until what it
// still rejects stands alone:
//
//	rejected together ──► halves ──► … ──► alone: accepted, or refused for sure
type rejection struct {
	version uint64
	// why the client refused it, as it said last.
	why string
	// good is what it accepted before; nil for nothing.
	good *resource.Resource
	// unsure is true when a former stream may have brought it something else.
	unsure bool
}

// uses tells whether what the client has instead may use the cluster.
func (r rejection) uses(cluster string) bool {
	return r.unsure || r.good != nil && bytes.Contains(r.good.Body, []byte(cluster))
}

// accept forgets refusals that the flight has replaced.
func (w *watch) accept(f flight) {
	if len(w.refused) == 0 {
		return
	}
	for _, r := range f.added {
		delete(w.refused, r.Name)
	}
	for _, n := range f.removed {
		delete(w.refused, n)
	}
}

// refuse notes a rejected response, and decides whom to suspect.
func (s *stream) refuse(w *watch, f flight, why string) {
	w.rejections++
	w.lastError = why
	guilty := slices.DeleteFunc(slices.Clone(f.added), func(r *resource.Resource) bool { return !blames(why, r.Name) })
	named := len(guilty) > 0
	if !named {
		guilty = f.added
	}
	for _, r := range guilty {
		s.note(w, f, r, why)
	}
	if len(f.added) == 0 {
		w.refused[""] = rejection{why: why, unsure: true}
	}
	if f.step != nil {
		f.step.trials.examine(s, s.server.o.Clock.Now())
		w.examined = f.step
	}
	switch {
	case len(f.added) == 1:
		s.convict(w, guilty[0], why)
	case s.protocol == Delta || !wildcardByDefault(w.typ):
		w.suspect(guilty)
	case named:
		// Listeners and clusters of the state of the world cannot be sent one by
		// one: absence is removal. Envoy's word has to do.
		for _, r := range guilty {
			s.convict(w, r, why)
		}
	}
}

// note remembers the refusal and what the client has instead.
func (s *stream) note(w *watch, f flight, r *resource.Resource, why string) {
	n, known := w.refused[r.Name]
	if !known {
		n.unsure = w.resumed
		if good := f.before.Get(r.Name); good != nil {
			n.good, n.unsure = s.server.quarantine.instead(good), false
		}
	}
	n.version, n.why = r.Version, why
	w.refused[r.Name] = n
}

// suspect queues resources that were rejected together, in front of others.
func (w *watch) suspect(rs []*resource.Resource) {
	size := 1
	if len(rs) > fewSuspects {
		size = (len(rs) + 1) / 2
	}
	var groups [][]string
	for part := range slices.Chunk(rs, size) {
		names := make([]string, 0, len(part))
		for _, r := range part {
			names = append(names, r.Name)
		}
		groups = append(groups, names)
	}
	w.suspects = append(groups, w.suspects...)
}

// planSuspects is the next part to send again. What has changed meanwhile, or is
// withheld from everybody, is no suspect any more.
func (s *stream) planSuspects(w *watch) batch {
	for len(w.suspects) > 0 {
		group := w.suspects[0]
		w.suspects = w.suspects[1:]
		var again []*resource.Resource
		for _, name := range group {
			r := w.sent.Get(name)
			if r != nil && r.Version == w.refused[name].version && w.wants(name) && s.server.quarantine.instead(r) == r {
				again = append(again, r)
			}
		}
		if len(again) > 0 {
			b := batch{before: w.sent, resources: again, changed: again, forced: true, again: true}
			return s.complete(w, w.sent, b)
		}
	}
	return batch{}
}

// acquit ends the examination when nobody is left to suspect.
func (s *stream) acquit(w *watch) {
	if w.examined == nil || len(w.suspects) > 0 || slices.ContainsFunc(w.flights, func(f flight) bool { return f.again }) {
		return
	}
	step := w.examined
	w.examined = nil
	for _, r := range step.changed {
		if n, refused := w.refused[r.Name]; refused && n.version == r.Version {
			step.trials.fail(s)
			return
		}
	}
	step.trials.pass(s.proxy.EnvoyVersion)
}

// blames tells whether Envoy's message is about the name: "Error adding/updating
// cluster(s) a: reason, b: reason". Short names occur within words, so the name
// must stand alone before its colon.
func blames(why, name string) bool {
	if name == "" {
		return false
	}
	for rest := why; ; {
		before, after, found := strings.Cut(rest, name+":")
		if !found {
			return false
		}
		if before == "" || strings.ContainsAny(before[len(before)-1:], " ,\n'\"(") {
			return true
		}
		rest = "x" + after // Never at the start again.
	}
}
