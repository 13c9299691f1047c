// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"iter"
	"slices"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// batch is what one response holds.
type batch struct {
	resources []*resource.Resource
	removed   []string
	// changed are those of the resources that the client does not have; the state
	// of the world brings the others along.
	changed []*resource.Resource
	// shared is set when resources are exactly its changed ones, whose encoding
	// other streams use too.
	shared *diff
	// before is what the client had been sent.
	before *resource.Set
	// step is set when the batch takes a step that is tried.
	step *diff
	// answer is true when the response goes even if it is empty.
	answer bool
	// forced is true when something goes whatever the client has.
	forced bool
	// again is true when it is sent to find out what of it the client rejects.
	again bool
	// restores is true when the client should have all of it.
	restores bool
	// whole is true when what it does not hold is gone.
	whole bool
	// apart is true when nothing waits for the answer.
	apart bool
	// version of the whole type, for state-of-the-world clients.
	version string
}

func (b batch) empty() bool {
	return len(b.resources) == 0 && len(b.removed) == 0 && !b.answer
}

// next is what goes now: what is under examination first, for the set is not
// the client's until that is over.
func (s *stream) next(w *watch, set *resource.Set) batch {
	if b := s.planSuspects(w); !b.empty() {
		return b
	}
	s.acquit(w)
	return s.plan(w, set)
}

// plan decides what brings the client from what it has to the set, and takes
// note of it: the caller sends the batch at once.
func (s *stream) plan(w *watch, set *resource.Set) batch {
	if w.sent == set && len(w.due) == 0 && !w.answer && w.have == nil {
		return batch{}
	}
	b := batch{before: w.sent}
	if w.have != nil {
		w.resumed = true
		s.planKnown(&b, w, set)
		w.sent = set
	} else {
		s.planDiff(&b, w, set)
	}
	answered := s.planDue(&b, w, set)
	b.answer, b.changed = w.answer, b.resources
	w.answer, w.have = false, nil
	if s.protocol == Delta {
		return b
	}
	b.answer = b.answer || answered
	return s.complete(w, w.sent, b)
}

// planDiff takes the shared step from set to set, but for names that are due anyway.
func (s *stream) planDiff(b *batch, w *watch, set *resource.Set) {
	d := s.server.diffs.between(w.sent, set)
	if !s.mayStep(w, d) {
		return
	}
	w.sent = set
	for _, r := range d.changed {
		if _, due := w.due[r.Name]; !due && w.wants(r.Name) && s.visible(w, r.Name) {
			s.put(b, w, r)
		}
	}
	if slices.Equal(b.resources, d.changed) {
		b.shared = d
	}
	if tried(w.typ) && len(d.changed) > 0 {
		b.step = d
		if len(b.resources) == 0 {
			d.trials.skip(s) // It has nothing to try.
			b.step = nil
		}
	}
	for _, r := range d.removed {
		if _, due := w.due[r.Name]; !due && w.wants(r.Name) {
			s.drop(b, w, r.Name, r)
		}
	}
}

// planKnown compares the set with what a reconnecting client claims to have.
func (s *stream) planKnown(b *batch, w *watch, set *resource.Set) {
	if !w.wildcard && !w.onDemand && w.typ != resource.VirtualHost {
		return // Everything that it wants is due.
	}
	for _, r := range set.List() {
		if _, due := w.due[r.Name]; !due && w.wants(r.Name) && w.have[r.Name] != r.Version && s.visible(w, r.Name) {
			s.put(b, w, r)
		}
	}
	for _, name := range sortedNames(w.have) {
		if _, due := w.due[name]; !due && (set.Get(name) == nil || !w.wants(name)) {
			s.drop(b, w, name, nil)
		}
	}
}

// planDue answers names that must be answered, and tells whether there were any.
func (s *stream) planDue(b *batch, w *watch, set *resource.Set) bool {
	if len(w.due) == 0 {
		return false
	}
	alone, many := len(b.resources) == 0, len(w.due) > fewNames
	newest := s.state.Sets[w.typ]
	for name, r := range w.dueOf(set) {
		if !s.visible(w, name) {
			r = nil
		} else if r == nil && set != newest && newest.Get(name) != nil {
			continue // Stays due until its clusters are there, moments from now.
		}
		why := w.due[name]
		_, had := w.have[name]
		delete(w.due, name)
		switch {
		case r == nil && w.typ == resource.Cluster && s.isLeaving(name):
		case r == nil && w.onDemand && had:
			s.drop(b, w, name, nil) // It had it before, and routes may still lead there.
		case r == nil && w.typ == resource.Endpoint && s.protocol == StateOfTheWorld:
			delete(s.held, name)
			b.resources = append(b.resources, nowhere(name))
		case r == nil:
			delete(s.held, name)
			b.removed = append(b.removed, name)
		case why == asked && w.have[name] == r.Version:
		default:
			b.forced = b.forced || why != asked
			s.putDue(b, w, r, why)
		}
	}
	if many && len(w.due) == 0 {
		w.due = map[string]reason{} // Maps do not shrink.
	}
	b.shared = nil
	if alone && len(b.resources) == len(set.List()) {
		if d := s.server.diffs.between(nil, set); slices.Equal(d.changed, b.resources) {
			b.shared = d
		}
	}
	return true
}

// dueOf yields the names that are due, with what the set has of them: of many,
// those that it has first. Whoever takes a name for done deletes it meanwhile.
func (w *watch) dueOf(set *resource.Set) iter.Seq2[string, *resource.Resource] {
	return func(yield func(string, *resource.Resource) bool) {
		if len(w.due) > fewNames { // as of a new proxy: no need to sort and look up
			for _, r := range set.List() {
				if _, due := w.due[r.Name]; due && !yield(r.Name, r) {
					return
				}
			}
		}
		for _, name := range sortedNames(w.due) {
			if !yield(name, set.Get(name)) {
				return
			}
		}
	}
}

func (s *stream) isLeaving(name string) bool {
	_, ok := s.leaving[name]
	return ok
}

// putDue adds a resource that is due. Endpoints that were re-sent because of
// their cluster go at the version that the client has, until the cluster is
// acknowledged: the cluster may have to learn first whom to trust.
func (s *stream) putDue(b *batch, w *watch, r *resource.Resource, why reason) {
	if w.typ != resource.Endpoint {
		if good := s.server.quarantine.instead(r); good != r && (w.typ == resource.VirtualHost || w.onDemand) {
			b.resources = append(b.resources, good) // Whatever the set was before: it, or its table, is new.
			return
		}
		s.put(b, w, r)
		return
	}
	had := s.held[r.Name]
	if why == released {
		delete(s.held, r.Name)
		if had != nil && had.Version != r.Version {
			b.resources = append(b.resources, r)
		}
		return
	}
	if had == nil && why == resent {
		had = b.before.Get(r.Name)
	}
	if why == resent && had != nil && had.Version != r.Version && s.waits(r.Name) {
		s.held[r.Name] = had
		b.resources = append(b.resources, had)
		return
	}
	delete(s.held, r.Name)
	b.resources = append(b.resources, r)
}

// put adds a resource that changed.
func (s *stream) put(b *batch, w *watch, r *resource.Resource) {
	if good := s.server.quarantine.instead(r); good != r {
		if w.have[r.Name] != good.Version && b.before.Get(r.Name) != good {
			b.resources = append(b.resources, good)
		}
		return
	}
	switch w.typ {
	case resource.Cluster:
		if s.keep(b, r) {
			return
		}
		l, was := s.leaving[r.Name]
		delete(s.leaving, r.Name)
		if was && l.version == r.Version && s.protocol == Delta {
			return // It came back before it was gone.
		}
	case resource.Endpoint:
		if s.held[r.Name] != nil {
			return // Goes when it is released.
		}
		if had := b.before.Get(r.Name); had != nil && s.waits(r.Name) {
			s.held[r.Name] = had
			return
		}
	}
	b.resources = append(b.resources, r)
}

// drop takes a resource away. Clusters stay until nothing uses them.
func (s *stream) drop(b *batch, w *watch, name string, r *resource.Resource) {
	if w.typ == resource.Cluster {
		if had := s.kept[name]; had != nil {
			r = had
			delete(s.kept, name)
		}
		l := leaving{since: s.state.Revision}
		if r != nil {
			l.version = r.Version
		}
		if s.protocol == StateOfTheWorld {
			l.resource = r
		}
		s.leaving[name] = l
		return
	}
	if w.typ == resource.Endpoint {
		delete(s.held, name)
	}
	if s.protocol == StateOfTheWorld {
		delete(w.refused, name) // Nothing is said of it any more.
	}
	b.removed = append(b.removed, name)
}

// visible tells whether the client may know of the resource at all.
func (s *stream) visible(w *watch, name string) bool {
	return w.typ != resource.Secret || s.maySeeSecret(name)
}

// complete turns a step into what the state of the world asks for: clusters and
// listeners whole, the rest as it is, and a version of everything together.
func (s *stream) complete(w *watch, set *resource.Set, b batch) batch {
	if s.protocol == Delta || b.empty() {
		return b
	}
	whole := s.whole(w, set)
	b.version = worldVersion(whole)
	if w.claimed != "" && w.claimed == b.version && !b.forced {
		// It came back with exactly this.
		w.claimed = ""
		w.nonce = ""
		return batch{}
	}
	w.resumed = w.resumed || w.claimed != ""
	w.claimed = ""
	if wildcardByDefault(w.typ) {
		b.resources, b.shared, b.answer, b.whole = whole, nil, true, true
		if slices.Equal(whole, set.List()) {
			b.shared = s.server.diffs.between(nil, set)
		}
	}
	// There is no removal but absence.
	b.removed = nil
	return b
}

// whole is everything of the type that the client should have now.
func (s *stream) whole(w *watch, set *resource.Set) []*resource.Resource {
	all := set.List()
	if w.wildcard && w.typ != resource.Secret && s.server.quarantine.empty() && (w.typ != resource.Cluster || len(s.leaving)+len(s.kept) == 0) {
		return all
	}
	var out []*resource.Resource
	for _, r := range all {
		if had := s.kept[r.Name]; had != nil && w.typ == resource.Cluster {
			out = append(out, had)
		} else if w.wants(r.Name) && s.visible(w, r.Name) {
			out = append(out, s.server.quarantine.instead(r))
		}
	}
	if w.typ == resource.Cluster {
		for _, name := range sortedNames(s.leaving) {
			if l := s.leaving[name]; l.resource != nil {
				out = append(out, l.resource)
			}
		}
	}
	return out
}

// worldVersion names a set of contents, whatever their order.
func worldVersion(rs []*resource.Resource) string {
	v := uint64(len(rs))
	for _, r := range rs {
		v += mix(r.Version)
	}
	return formatVersion(v)
}

// mix spreads the bits of a hash, so that sums of hashes do not collide by
// their regularity (the finisher of splitmix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
