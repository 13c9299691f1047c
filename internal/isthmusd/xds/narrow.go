// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"slices"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// Clusters name the identities that their endpoints may prove. So a new identity
// is told to the client before the endpoint that has it (held endpoints), and an
// old one is taken back after its endpoints are gone:
//
//	wider:    cluster ──acknowledged──► endpoints
//	narrower: endpoints ──acknowledged──► cluster
//
// A change that does both at once goes as a wider one: the new endpoints work
// from their first moment, the old ones are on their way out anyhow.

// narrows tells whether the changed cluster has to wait for its endpoints.
func (s *stream) narrows(had, r *resource.Resource) bool {
	return narrower(had, r) && !s.endpointsArrived(r.ServiceName)
}

// narrower tells whether the cluster trusts some of the identities that it did,
// and no others.
func narrower(had, r *resource.Resource) bool {
	return had.ServiceName == r.ServiceName && r.ServiceName != "" && len(r.Trusts) < len(had.Trusts) &&
		!slices.ContainsFunc(r.Trusts, func(name string) bool { return !slices.Contains(had.Trusts, name) })
}

// endpointsArrived tells whether the client has the newest endpoints of the
// service, or does not ask for them, or leaves us without an answer.
func (s *stream) endpointsArrived(service string) bool {
	w := &s.watches[resource.Endpoint]
	if !w.active || !w.wants(service) {
		return true
	}
	if _, due := w.due[service]; due || s.held[service] != nil {
		return false
	}
	newest, sent := s.state.Sets[resource.Endpoint].Get(service), w.sent.Get(service)
	if (newest == nil) != (sent == nil) || newest != nil && newest.Version != sent.Version {
		return false
	}
	return !slices.ContainsFunc(w.flights, func(f flight) bool { return !f.late && f.brings(service) })
}

// brings tells whether the flight is about the name.
func (f *flight) brings(name string) bool {
	return slices.Contains(f.removed, name) ||
		slices.ContainsFunc(f.added, func(r *resource.Resource) bool { return r.Name == name })
}
