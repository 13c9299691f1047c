// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"slices"
	"sync"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// keptBad bounds what is remembered of bad resources.
const keptBad = 1024

// Quarantined is a resource that proxies rejected when it came alone.
type Quarantined struct {
	Type string `json:"type"`
	Name string `json:"name"`
	// Owners are the users' objects that it was made of, as paths in Kubernetes' API.
	Owners []string `json:"owners,omitempty"`
	// Error is what the last of them said.
	Error string `json:"error"`
	// By are the first proxies that rejected it, as namespace/name.
	By []string `json:"by"`
	// Withheld is true when nobody gets it any more: proxies keep, and new ones
	// get, the last good one. Without a good one there is nothing to fall back to,
	// and each Envoy refuses it for itself.
	Withheld bool `json:"withheld"`
}

// quarantine remembers rejected resources by the hash of their content. Content
// that changes is a new chance.
type quarantine struct {
	mu    sync.RWMutex
	bad   map[uint64]*suspended
	order []uint64
}

type suspended struct {
	// good is what is sent instead; nil while the resource is sent itself.
	good   *resource.Resource
	report Quarantined
}

// strike is one proxy's rejection of a resource that came alone.
type strike struct {
	resource *resource.Resource
	// good is what the proxy has instead, or nil.
	good *resource.Resource
	// owners of the resource.
	owners []string
	by     string
	why    string
	// only is true when no other proxy is to get it.
	only bool
}

// add notes a strike and tells whether the resource is withheld from now on: two
// proxies rejected it, or the only one that there is.
func (q *quarantine) add(k strike) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	v := k.resource.Version
	e := q.bad[v]
	if e == nil {
		e = &suspended{report: Quarantined{Type: shortName(k.resource.Type), Name: k.resource.Name, Owners: k.owners}}
		q.remember(v, e)
	}
	e.report.Error = k.why
	if len(e.report.By) < 2 && !slices.Contains(e.report.By, k.by) {
		e.report.By = append(e.report.By, k.by)
	}
	if e.good != nil || k.good == nil || len(e.report.By) < 2 && !k.only {
		return false
	}
	e.good, e.report.Withheld = k.good, true
	return true
}

func (q *quarantine) remember(version uint64, e *suspended) {
	if q.bad == nil {
		q.bad = map[uint64]*suspended{}
	}
	if len(q.order) >= keptBad {
		delete(q.bad, q.order[0])
		q.order = q.order[1:]
	}
	q.bad[version] = e
	q.order = append(q.order, version)
}

// instead is what to send for the resource: itself, or the last good one.
func (q *quarantine) instead(r *resource.Resource) *resource.Resource {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if e := q.bad[r.Version]; e != nil && e.good != nil {
		return e.good
	}
	return r
}

func (q *quarantine) empty() bool {
	q.mu.RLock()
	defer q.mu.RUnlock()
	return len(q.bad) == 0
}

// Quarantined lists what proxies rejected, oldest first.
func (s *Server) Quarantined() []Quarantined {
	s.quarantine.mu.RLock()
	defer s.quarantine.mu.RUnlock()
	out := make([]Quarantined, 0, len(s.quarantine.order))
	for _, v := range s.quarantine.order {
		r := s.quarantine.bad[v].report
		r.By = slices.Clone(r.By)
		out = append(out, r)
	}
	return out
}

// convict notes that the client rejects the resource for sure.
func (s *stream) convict(w *watch, r *resource.Resource, why string) {
	k := strike{
		resource: r, good: w.refused[r.Name].good, why: why,
		by:     s.proxy.Namespace + "/" + s.proxy.Name,
		owners: s.server.o.Owners(r),
		only:   !s.server.streams.others(s, r),
	}
	if s.server.quarantine.add(k) {
		s.server.metrics.quarantined.Inc()
		s.log.Info("Withholding a resource that proxies reject", "type", shortName(w.typ), "resource", r.Name, "owners", k.owners, "error", why)
	}
}
