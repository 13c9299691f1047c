// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// startPatience bounds how long a client may take from its first request to its
// first for listeners: Envoy's own wait for the names of its clusters is shorter.
const startPatience = 30 * time.Second

// keep tells whether the client has to keep the changed cluster as it was for now,
// and takes note of it.
func (s *stream) keep(b *batch, r *resource.Resource) bool {
	had := s.kept[r.Name]
	if had == nil {
		had = b.before.Get(r.Name)
	}
	delete(s.kept, r.Name)
	if had == nil || !s.mustKeep(had, r, s.server.o.Clock.Now()) {
		return false
	}
	s.kept[r.Name] = had
	return true
}

func (s *stream) mustKeep(had, r *resource.Resource, now time.Time) bool {
	return s.narrows(had, r) || turns(had, r) && s.starts(now)
}

// release makes clusters due that need not be kept as they were any more.
func (s *stream) release(w *watch, now time.Time) {
	for name, had := range s.kept {
		if r := w.sent.Get(name); r == nil || !s.mustKeep(had, r, now) {
			w.due[name] = released
		}
	}
}

// turns tells whether the cluster begins or ends to have its endpoints from us.
//
// An Envoy that starts brings up first the clusters that have not, then the others,
// and keeps a list of each. A cluster that changes from one to the other meanwhile
// stays in its old list for ever, and Envoy never asks for listeners (as of 1.40:
// TestRealEnvoyStartsWhileAClusterTurns). So it changes when Envoy has started.
func turns(had, r *resource.Resource) bool {
	return (had.ServiceName == "") != (r.ServiceName == "")
}

// starts tells whether the client may still be about to bring up its clusters:
// until it has, Envoy asks for no listeners.
func (s *stream) starts(now time.Time) bool {
	return !s.watches[resource.Listener].active && now.Before(s.connected.Add(startPatience))
}

// nowhere are the endpoints of a service that has none and is not known: the state
// of the world has no other word for that, and without one Envoy's cluster waits.
func nowhere(service string) *resource.Resource {
	const clusterName = 1 // of envoy.config.endpoint.v3.ClusterLoadAssignment
	body := protowire.AppendTag(nil, clusterName, protowire.BytesType)
	return &resource.Resource{Type: resource.Endpoint, Name: service, Body: protowire.AppendString(body, service)}
}
