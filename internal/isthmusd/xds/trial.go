// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"slices"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

const (
	// trialWait bounds how long others wait for the first proxy's answer.
	trialWait = 300 * time.Millisecond
	// keptBad bounds what is remembered of bad resources.
	keptBad = 1024
)

// trial tries the bytes of a step on one proxy before the others of its class
// and Envoy version get them: a rejection names no resource for sure, and may be
// one pod's own fault (a port taken). What two proxies reject and none accepts
// is bad; it is sent to nobody else.
//
//	first ──► accepted, or 300 ms ──► everybody
//	  └─────► rejected ──► second ──► accepted, or 300 ms ──► everybody
//	                         └──────► rejected ──► everybody, without what is bad
type trial struct {
	// tester has the bytes and has not answered; nil when nobody tries them.
	tester *stream
	until  time.Time
	open   bool
	// rejected is what the first proxy rejected.
	rejected []*resource.Resource
	failures int
	waiting  map[chan struct{}]struct{}
}

// trials of one step, by Envoy version.
type trials struct {
	mu sync.Mutex
	by map[string]*trial
}

// tried tells whether steps of the type are tried. Endpoints are not: they
// change often and are never refused for their meaning. Secrets are one proxy's.
func tried(t resource.Type) bool {
	return t == resource.Cluster || t == resource.Listener || t == resource.Route
}

// enter tells whether the stream may take the step now; if not, until when it
// has to wait at most. It is told through its channel when it may earlier.
func (ts *trials) enter(s *stream, now time.Time) (ok bool, until time.Time) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.by == nil {
		ts.by = map[string]*trial{}
	}
	t := ts.by[s.proxy.EnvoyVersion]
	if t == nil {
		t = &trial{waiting: map[chan struct{}]struct{}{}}
		ts.by[s.proxy.EnvoyVersion] = t
	}
	switch {
	case t.open || t.tester == s:
		return true, time.Time{}
	case t.tester == nil:
		t.tester, t.until = s, now.Add(trialWait)
		return true, time.Time{}
	case !now.Before(t.until):
		t.conclude()
		return true, time.Time{}
	default:
		t.waiting[s.notify] = struct{}{}
		return false, t.until
	}
}

// pass opens the step to everybody.
func (ts *trials) pass(version string) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if t := ts.by[version]; t != nil {
		t.conclude()
	}
}

// fail notes a rejection by a tester and returns what two have now rejected.
func (ts *trials) fail(s *stream, rejected []*resource.Resource) []*resource.Resource {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t := ts.by[s.proxy.EnvoyVersion]
	if t == nil || t.open || t.tester != s {
		return nil
	}
	t.failures++
	if t.failures == 1 {
		t.rejected, t.tester = rejected, nil
		t.wake()
		return nil
	}
	t.conclude()
	var both []*resource.Resource
	for _, r := range rejected {
		if slices.Contains(t.rejected, r) {
			both = append(both, r)
		}
	}
	return both
}

func (t *trial) conclude() {
	t.open, t.tester = true, nil
	t.wake()
}

func (t *trial) wake() {
	for c := range t.waiting {
		select {
		case c <- struct{}{}:
		default:
		}
	}
	clear(t.waiting)
}

// Quarantined is a resource that proxies rejected and that is withheld.
type Quarantined struct {
	Type string `json:"type"`
	Name string `json:"name"`
	// Error is what the second proxy said.
	Error string `json:"error"`
	// By are the proxies that rejected it last, as namespace/name.
	By string `json:"by"`
}

// quarantine remembers bad resources by the hash of their content, each with
// the last good one of its name. Content that changes is a new chance.
type quarantine struct {
	mu    sync.RWMutex
	bad   map[uint64]withheld
	order []uint64
}

type withheld struct {
	good   *resource.Resource
	report Quarantined
}

// add withholds a resource in favour of the one that proxies have. Without one
// there is nothing to fall back to, and Envoy itself refuses it as well as we
// could.
func (q *quarantine) add(r, good *resource.Resource, report Quarantined) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, known := q.bad[r.Version]; known {
		return
	}
	if q.bad == nil {
		q.bad = map[uint64]withheld{}
	}
	if len(q.order) >= keptBad {
		delete(q.bad, q.order[0])
		q.order = q.order[1:]
	}
	q.bad[r.Version] = withheld{good: good, report: report}
	q.order = append(q.order, r.Version)
}

// instead is what to send for the resource: itself, or the last good one.
func (q *quarantine) instead(r *resource.Resource) *resource.Resource {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if w, bad := q.bad[r.Version]; bad {
		return w.good
	}
	return r
}

func (q *quarantine) empty() bool {
	q.mu.RLock()
	defer q.mu.RUnlock()
	return len(q.bad) == 0
}

// Quarantined lists what is withheld, oldest first.
func (s *Server) Quarantined() []Quarantined {
	s.quarantine.mu.RLock()
	defer s.quarantine.mu.RUnlock()
	out := make([]Quarantined, 0, len(s.quarantine.order))
	for _, v := range s.quarantine.order {
		out = append(out, s.quarantine.bad[v].report)
	}
	return out
}

// mayStep tells whether the stream may take the step of this type now.
func (s *stream) mayStep(w *watch, d *diff) bool {
	if w.sent == nil || !tried(w.typ) {
		return true
	}
	if !slices.ContainsFunc(d.changed, func(r *resource.Resource) bool { return w.wants(r.Name) }) {
		return true // It would have nothing to answer.
	}
	ok, until := d.trials.enter(s, s.server.o.Clock.Now())
	if !ok {
		w.trialUntil = until
	}
	return ok
}

// judge tells the trial of a step how this proxy took it.
func (s *stream) judge(w *watch, f flight, why string, culprits []*resource.Resource) {
	if f.step == nil {
		return
	}
	if why == "" {
		f.step.trials.pass(s.proxy.EnvoyVersion)
		return
	}
	for _, r := range f.step.trials.fail(s, culprits) {
		good := f.before.Get(r.Name)
		if good == nil {
			continue
		}
		good = s.server.quarantine.instead(good)
		report := Quarantined{Type: shortName(w.typ), Name: r.Name, Error: why, By: s.proxy.Namespace + "/" + s.proxy.Name}
		s.server.quarantine.add(r, good, report)
		s.server.metrics.quarantined.Inc()
		s.log.Info("Withholding a resource that two proxies rejected", "type", report.Type, "resource", r.Name, "error", why)
	}
}
