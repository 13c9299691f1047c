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
	// examineWait bounds how long they wait while the first proxy, having rejected
	// the bytes, gets them in parts.
	examineWait = 2 * time.Second
)

// trial tries the bytes of a step on one proxy before the others of its class
// and Envoy version get them, because a rejection may be one pod's own fault (a
// port taken).
//
//	first ──► accepted, or 300 ms ──► everybody
//	  └─────► rejected, examined ──► second ──► accepted, or 300 ms ──► everybody
//	                                   └──────► rejected, examined ──► everybody
//
// What the examinations find guilty twice is withheld: see quarantine.
type trial struct {
	// tester has the bytes and has not answered; nil when nobody tries them.
	tester *stream
	until  time.Time
	open   bool

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
	return t == resource.Cluster || follows(t)
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

// skip opens the step to everybody if the stream, which has nothing to try, is the
// one that should.
func (ts *trials) skip(s *stream) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if t := ts.by[s.proxy.EnvoyVersion]; t != nil && t.tester == s {
		t.conclude()
	}
}

// examine gives a tester that rejected the step time to find out what of it.
func (ts *trials) examine(s *stream, now time.Time) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if t := ts.by[s.proxy.EnvoyVersion]; t != nil && !t.open && t.tester == s {
		t.until = now.Add(examineWait)
	}
}

// fail notes that a tester rejects something of the step: another one tries it,
// and after that everybody gets it, but for what was withheld meanwhile.
func (ts *trials) fail(s *stream) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t := ts.by[s.proxy.EnvoyVersion]
	if t == nil || t.open || t.tester != s {
		return
	}
	t.failures++
	if t.failures > 1 {
		t.conclude()
		return
	}
	t.tester = nil
	t.wake()
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

// pass tells the trial of a flight's step that this proxy took it.
func (s *stream) pass(f flight) {
	if f.step != nil {
		f.step.trials.pass(s.proxy.EnvoyVersion)
	}
}
