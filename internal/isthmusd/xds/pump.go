// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc/mem"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// pump sends everything that may go now, in the order that breaks nothing.
func (s *stream) pump(now time.Time) error {
	s.expire(now)
	if err := s.depart(now); err != nil {
		return err
	}
	for _, step := range []func(time.Time) error{s.pumpClusters, s.pumpEndpoints, s.pumpFollowers, s.pumpUnserved} {
		if err := step(now); err != nil {
			return err
		}
	}
	s.mark(now)
	s.schedule(now)
	s.compact(now)
	s.publish()
	return nil
}

// expire stops waiting for acknowledgements that are withheld too long.
func (s *stream) expire(now time.Time) {
	for t := range s.watches {
		late := s.watches[t].expire(now, s.server.o.Patience)
		if late != nil && t == int(resource.Cluster) {
			s.opened = cmp.Or(late.state, s.opened)
		}
	}
}

// depart removes clusters whose time has come. It waits for no acknowledgement
// of other clusters: Envoy may withhold that for long.
func (s *stream) depart(now time.Time) error {
	if len(s.leaving) == 0 {
		return nil
	}
	var gone []string
	for name, l := range s.leaving {
		if !l.deadline.IsZero() && !now.Before(l.deadline) {
			gone = append(gone, name)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	for _, n := range gone {
		delete(s.leaving, n)
	}
	slices.Sort(gone)
	w := &s.watches[resource.Cluster]
	return s.send(now, w, s.state, s.complete(w, w.sent, batch{removed: gone, apart: true}))
}

// schedule sets the hour of clusters that listeners and routes no longer use:
// filter chains that drain still do.
func (s *stream) schedule(now time.Time) {
	for name, l := range s.leaving {
		if l.deadline.IsZero() && s.followed(name, l.since) {
			l.deadline = now.Add(s.server.o.Linger)
			s.leaving[name] = l
		}
	}
}

// followed tells whether listeners, routes and their hosts have left the cluster behind, as
// of the revision that has it no more. What the client rejects does not hold up
// others, but what it has instead may still use the cluster.
func (s *stream) followed(cluster string, revision uint64) bool {
	for t := range s.watches {
		w := &s.watches[t]
		if !w.active || !follows(w.typ) {
			continue
		}
		if w.settled < revision {
			return false
		}
		for _, n := range w.refused {
			if n.uses(cluster) {
				return false
			}
		}
	}
	return true
}

func (s *stream) pumpClusters(now time.Time) error {
	w := &s.watches[resource.Cluster]
	s.release(w, now)
	s.volunteer(w)
	if w.active && w.maySend() {
		b := s.next(w, s.state.Sets[resource.Cluster])
		if err := s.send(now, w, s.state, b); err != nil {
			return err
		}
	}
	if !w.active || w.blocking() == 0 && w.sent == s.state.Sets[resource.Cluster] {
		s.opened = s.state
	}
	return nil
}

// pumpEndpoints never waits for listeners or routes. Endpoints of clusters that
// were just sent go again, because Envoy does not ask again for what it had.
func (s *stream) pumpEndpoints(now time.Time) error {
	w := &s.watches[resource.Endpoint]
	if !w.active {
		return nil
	}
	for name := range s.held {
		if _, busy := w.due[name]; !busy && !s.waits(name) {
			w.due[name] = released
		}
	}
	if !w.maySend() {
		return nil
	}
	return s.send(now, w, s.state, s.next(w, s.state.Sets[resource.Endpoint]))
}

// pumpFollowers sends listeners and routes of the opened state, and secrets of
// the newest: clusters may be what waits for those.
func (s *stream) pumpFollowers(now time.Time) error {
	for _, f := range []struct {
		typ   resource.Type
		state *resource.State
	}{{resource.Secret, s.state}, {resource.Listener, s.opened}, {resource.Route, s.opened}, {resource.VirtualHost, s.opened}} {
		w := &s.watches[f.typ]
		if !w.active || f.state == nil || !w.maySend() {
			continue
		}
		plan := s.next
		if f.typ == resource.VirtualHost {
			plan = s.pumpHosts
		}
		if err := s.send(now, w, f.state, plan(w, f.state.Sets[f.typ])); err != nil {
			return err
		}
	}
	return nil
}

// send ships a batch and notes it as under way.
func (s *stream) send(now time.Time, w *watch, state *resource.State, b batch) error {
	if b.empty() {
		return nil
	}
	h := head{
		version: b.version,
		url:     w.typ.URL(),
		nonce:   s.nextNonce(),
		removed: b.removed,
	}
	if s.protocol == Delta {
		h.version = strconv.FormatUint(state.Revision, 10)
	}
	var body mem.BufferSlice
	if b.shared != nil {
		body = b.shared.payload(s.protocol)
	} else {
		body = encode(s.protocol, b.resources)
	}
	m := message(s.protocol, h, body)
	if err := s.out.SendMsg(m); err != nil {
		return err
	}
	s.server.responses.Add(1)
	s.server.metrics.sent(w.typ, m)
	w.nonce = h.nonce
	f := flight{
		nonce: h.nonce, sentAt: now, state: state, before: b.before, step: b.step,
		added: b.resources, removed: b.removed, late: b.apart, again: b.again, restores: b.restores, whole: b.whole,
	}
	if b.again {
		f.state = nil // It brings the client no further.
	}
	switch w.typ {
	case resource.Cluster:
		f.holds = s.resend(b.changed)
	case resource.Route:
		s.followTables(b.resources)
	}
	w.flights = append(w.flights, f)
	return nil
}

func (s *stream) nextNonce() string {
	s.nonces++
	return strconv.FormatUint(s.nonces, 10)
}

// resend makes the endpoints of these clusters due, whether or not the client
// has them: a cluster that was added or changed warms until it gets them, and
// Envoy asks only for names that it did not have before.
func (s *stream) resend(clusters []*resource.Resource) map[string]struct{} {
	w := &s.watches[resource.Endpoint]
	if !w.active {
		s.early = append(s.early, clusters)
		return nil
	}
	var holds map[string]struct{}
	for _, c := range clusters {
		name := c.ServiceName
		if name == "" {
			continue
		}
		if !w.wants(name) {
			s.owe(name)
			continue
		}
		if holds == nil {
			holds = map[string]struct{}{}
		}
		holds[name] = struct{}{}
		if r, busy := w.due[name]; !busy || r == released {
			w.due[name] = resent
		} else if r == asked {
			w.due[name] = owed
		}
	}
	return holds
}

// owe notes that a cluster was sent whose endpoints were not asked for.
func (s *stream) owe(service string) {
	if s.owed == nil {
		s.owed = map[string]struct{}{}
	}
	s.owed[service] = struct{}{}
}

// oweEarly is about clusters that were sent before any endpoints were asked for.
// Only a client that claims to have endpoints has to be told of them by name.
func (s *stream) oweEarly(w *watch) {
	if len(w.have) > 0 || w.claimed != "" {
		for _, clusters := range s.early {
			for _, c := range clusters {
				s.owe(c.ServiceName)
			}
		}
	}
	s.early = nil
}

// waits tells whether new endpoints of the service wait for its clusters.
func (s *stream) waits(service string) bool {
	for _, f := range s.watches[resource.Cluster].flights {
		if _, ok := f.holds[service]; ok && !f.late {
			return true
		}
	}
	return false
}

// mark notes how far the client has come.
func (s *stream) mark(now time.Time) {
	all := true
	for t := range s.watches {
		w := &s.watches[t]
		state := s.state
		if follows(w.typ) {
			state = s.opened
		}
		// Without tables there is nobody to have hosts.
		idle := w.typ == resource.VirtualHost && !s.watches[resource.Route].active
		if state != nil && (idle || w.answered(state.Sets[t])) && !s.withholds(w.typ) {
			w.settled = state.Revision
			if len(w.refused) == 0 {
				w.acked = Mark{Revision: state.Revision, Epoch: state.Epoch}
			}
		}
		if w.active && w.acked.Revision < s.state.Revision {
			all = false
		}
	}
	if all && s.converged < s.state.Revision {
		s.converged = s.state.Revision
		s.server.metrics.convergence.Observe(now.Sub(s.noticed).Seconds())
	}
}

// follows tells whether the type goes when clusters are acknowledged.
func follows(t resource.Type) bool {
	return t == resource.Listener || t == resource.Route || t == resource.VirtualHost
}

// withholds tells whether the client has older versions than its watch says.
func (s *stream) withholds(t resource.Type) bool {
	return t == resource.Endpoint && len(s.held) > 0 || t == resource.Cluster && len(s.kept) > 0
}

// answered tells whether the client has accepted or rejected all of the set.
func (w *watch) answered(set *resource.Set) bool {
	return w.active && w.have == nil && len(w.flights) == 0 && len(w.due) == 0 && len(w.suspects) == 0 && w.sent == set
}

// compact lets go of what the last requests needed.
func (s *stream) compact(now time.Time) {
	for t := range s.watches {
		s.server.names.share(&s.watches[t].names)
		s.watches[t].letGo(now, s.state.Revision)
	}
	if w := &s.watches[resource.Endpoint]; w.active && w.have == nil && w.claimed == "" {
		s.owed = nil // What is asked for from now on, the client does not claim to have.
	}
}

// sortedNames of a map, so that messages do not depend on its order.
func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
