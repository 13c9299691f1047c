// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"slices"
	"sync"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// A client on demand subscribes to all clusters as every other does, and is told of
// those that it needs in any case: Unasked. The others it asks for by name, in the
// middle of a request. What it has it keeps, asked for or not, until the stream
// ends; when it comes back it says what it has.
//
//	wildcard ──► Unasked, and what its workload asked for before
//	name     ──► that cluster, or its removal, at once
//
// NOTE: Envoy asks for a name once. One that did not exist, or has gone, has to be
// sent unasked as soon as it exists.

// choose makes the watch of clusters one on demand.
func (s *stream) choose(w *watch) {
	w.onDemand = s.proxy.OnDemand && w.typ == resource.Cluster
	if !w.onDemand {
		return
	}
	for name := range w.have {
		w.names.add(name)
	}
}

// volunteer adds clusters to what the client is taken to have asked for.
func (s *stream) volunteer(w *watch) {
	if !w.onDemand || !w.wildcard || w.volunteered == s.state.Unasked {
		return
	}
	if w.volunteered == nil {
		for _, name := range s.server.history.of(s.workloadKey()) {
			if s.state.Sets[resource.Cluster].Get(name) != nil {
				s.offer(w, name)
			}
		}
	}
	w.volunteered = s.state.Unasked
	for _, r := range w.volunteered.List() {
		s.offer(w, r.Name)
	}
}

func (s *stream) offer(w *watch, name string) {
	if !w.names.has(name) {
		w.names.add(name)
		w.due[name] = asked
	}
}

// remember notes that a client of this workload has asked for the cluster.
func (s *stream) remember(w *watch, name string) {
	if w.onDemand && s.state.Sets[resource.Cluster].Get(name) != nil {
		s.server.history.note(s.workloadKey(), name)
	}
}

func (s *stream) workloadKey() workloadKey {
	return workloadKey{s.proxy.Namespace, s.proxy.ServiceAccount, s.proxy.Workload}
}

// workloadKey is whose pods are expected to call the same services.
type workloadKey struct{ namespace, account, workload string }

const (
	// keptWorkloads bounds the history, and keptUses what is remembered of each.
	keptWorkloads = 4096
	keptUses      = 128
)

// history remembers which clusters workloads asked for, so that their next pod has
// them before its first request. The zero value is empty.
type history struct {
	mu    sync.Mutex
	uses  map[workloadKey][]string // oldest first
	order []workloadKey            // by first use
}

func (h *history) note(k workloadKey, cluster string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	had, known := h.uses[k]
	if slices.Contains(had, cluster) {
		return
	}
	if !known {
		h.admit(k)
	}
	if len(had) >= keptUses {
		had = slices.Delete(had, 0, 1)
	}
	h.uses[k] = append(had, cluster)
}

func (h *history) admit(k workloadKey) {
	if h.uses == nil {
		h.uses = map[workloadKey][]string{}
	}
	if len(h.order) >= keptWorkloads {
		delete(h.uses, h.order[0])
		h.order = h.order[1:]
	}
	h.order = append(h.order, k)
}

func (h *history) of(k workloadKey) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.uses[k])
}
