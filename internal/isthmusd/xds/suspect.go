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
//
// What is innocent goes again too, and what is good in place of the guilty: Envoy
// took the one and has kept the other, but tells a replica that it reconnects to
// of nothing that came with a rejection.
type rejection struct {
	version uint64
	// why the client refused it, as it said last.
	why string
	// good is what it accepted before; nil for nothing.
	good *resource.Resource
	// restored is true once good was sent again.
	restored bool
	// unsure is true when a former stream may have brought it something else.
	unsure bool
}

// suspect is what came with a rejection.
type suspect struct {
	name    string
	version uint64
}

// uses tells whether what the client has instead may use the cluster.
func (r rejection) uses(cluster string) bool {
	return r.unsure || r.good != nil && bytes.Contains(r.good.Body, []byte(cluster))
}

// accept forgets refusals that the flight has replaced.
func (w *watch) accept(f flight) {
	if len(w.refused) == 0 || f.restores {
		return
	}
	if f.whole {
		clear(w.refused)
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
	if f.restores {
		return // It has them anyhow.
	}
	guilty, rest := blamed(why, f.added)
	named := len(guilty) > 0
	if !named {
		guilty, rest = rest, nil
	}
	for _, r := range guilty {
		s.note(w, f, r, why)
	}
	if len(f.added) == 0 {
		w.refused[""] = rejection{why: why, unsure: true}
	} else if s.protocol == Delta {
		w.unremoved = append(w.unremoved, f.removed...)
	}
	if f.step != nil {
		f.step.trials.examine(s, s.server.o.Clock.Now())
		w.examined = f.step
	}
	switch {
	case len(f.added) == 1 && w.mayDepend(guilty[0]):
		w.suspects = append(w.suspects, []suspect{{guilty[0].Name, guilty[0].Version}})
	case len(f.added) == 1:
		s.convict(w, guilty[0], why)
	case s.protocol == Delta || !wildcardByDefault(w.typ):
		w.suspect(guilty, rest)
	case named:
		// Listeners and clusters of the state of the world cannot be sent one by
		// one: absence is removal. Envoy's word has to do.
		for _, r := range guilty {
			s.convict(w, r, why)
		}
	}
}

// mayDepend tells whether what was rejected alone is to be tried once more after
// the other suspects: a virtual host cannot have a domain that another, as the
// client has it, has not given up yet.
func (w *watch) mayDepend(r *resource.Resource) bool {
	if w.typ != resource.VirtualHost || len(w.suspects) == 0 {
		return false
	}
	before, again := w.pardoned[r.Name]
	if again && before == w.innocent {
		return false // Nothing was accepted since.
	}
	if w.pardoned == nil {
		w.pardoned = map[string]int{}
	}
	w.pardoned[r.Name] = w.innocent
	return true
}

// note remembers the refusal and what the client has instead.
func (s *stream) note(w *watch, f flight, r *resource.Resource, why string) {
	if !w.wants(r.Name) {
		return
	}
	n, known := w.refused[r.Name]
	if !known {
		n.unsure = w.resumed || f.gone
		// What is no older than the rejected it was not sent before.
		if good := f.before.Get(r.Name); good != nil && good.Version != r.Version {
			n.good, n.unsure = s.server.quarantine.instead(good), false
		}
	}
	n.version, n.why = r.Version, why
	w.refused[r.Name] = n
}

// suspect queues resources that were rejected together, in front of others: the
// guilty in parts, then those that seem innocent.
func (w *watch) suspect(guilty, rest []*resource.Resource) {
	size := 1
	if len(guilty) > fewSuspects {
		size = (len(guilty) + 1) / 2
	}
	parts := slices.Collect(slices.Chunk(guilty, size))
	if len(rest) > 0 {
		parts = append(parts, rest)
	}
	groups := make([][]suspect, 0, len(parts)+len(w.suspects))
	for _, part := range parts {
		var group []suspect
		for _, r := range part {
			group = append(group, suspect{r.Name, r.Version})
		}
		groups = append(groups, group)
	}
	w.suspects = append(groups, w.suspects...)
}

// planSuspects is the next part to send again. What has changed meanwhile, or is
// withheld from everybody, is no suspect any more.
func (s *stream) planSuspects(w *watch) batch {
	if len(w.suspects) == 0 {
		w.pardoned, w.innocent = nil, 0
	}
	if w.typ == resource.VirtualHost {
		// Their domains may be what suspects wait for.
		if b := s.planUnremoved(w); !b.empty() {
			return b
		}
	}
	for len(w.suspects) > 0 {
		group := w.suspects[0]
		w.suspects = w.suspects[1:]
		var again []*resource.Resource
		for _, x := range group {
			r := w.sent.Get(x.name)
			if r != nil && r.Version == x.version && w.wants(x.name) && s.server.quarantine.instead(r) == r {
				again = append(again, r)
			}
		}
		if len(again) > 0 {
			b := batch{before: w.sent, resources: again, changed: again, forced: true, again: true}
			return s.complete(w, w.sent, b)
		}
	}
	return s.planRestore(w)
}

// planRestore sends what the client has in place of the guilty, and removals that
// came with them, once.
func (s *stream) planRestore(w *watch) batch {
	if len(w.refused)+len(w.unremoved) == 0 {
		return batch{} // as nearly always
	}
	var good []*resource.Resource
	for _, name := range sortedNames(w.refused) {
		n := w.refused[name]
		if n.good != nil && !n.restored && w.wants(name) && s.protocol == Delta {
			n.restored = true
			w.refused[name] = n
			good = append(good, n.good)
		}
	}
	if len(good) > 0 {
		return batch{before: w.sent, resources: good, changed: good, forced: true, again: true, restores: true}
	}
	return s.planUnremoved(w)
}

// planUnremoved removes again what was removed with a rejection.
func (s *stream) planUnremoved(w *watch) batch {
	gone := slices.DeleteFunc(w.unremoved, func(n string) bool { return w.sent.Get(n) != nil || s.isLeaving(n) || !w.wants(n) })
	w.unremoved = nil
	return batch{removed: gone, again: true}
}

// acquit ends the examination when nobody is left to suspect.
func (s *stream) acquit(w *watch) {
	if w.examined == nil || len(w.suspects) > 0 || slices.ContainsFunc(w.flights, func(f flight) bool { return f.again && !f.restores }) {
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

// blamed parts resources into those that the message blames and the rest.
func blamed(why string, rs []*resource.Resource) (guilty, rest []*resource.Resource) {
	for _, r := range rs {
		if blames(why, r.Name) {
			guilty = append(guilty, r)
		} else {
			rest = append(rest, r)
		}
	}
	return guilty, rest
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
