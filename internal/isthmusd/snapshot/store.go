// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"sync"
	"sync/atomic"

	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// Store holds the newest Snapshot. Commits are one at a time; Current never waits.
type Store struct {
	commit  sync.Mutex
	current atomic.Pointer[Snapshot]
}

// NewStore returns a Store with an empty Snapshot of revision 0 that has this
// topology and mesh configuration until a commit sets others.
func NewStore(c topology.Config, m *meshconfig.MeshConfig) *Store {
	s := &Store{}
	s.current.Store(&Snapshot{tables: newTables(), config: c, compiled: compile(c), mesh: m})
	return s
}

// Current returns the newest Snapshot.
func (s *Store) Current() *Snapshot { return s.current.Load() }

// Commit runs the changes and publishes the outcome as one new revision. It
// returns the reads whose result may differ. There are none where only what later
// commits build on has changed, such as a node that has no pod yet; where nothing
// has, the Snapshot is the one before.
func (s *Store) Commit(change func(*Txn)) (*Snapshot, Changes) {
	s.commit.Lock()
	defer s.commit.Unlock()
	old := s.current.Load()
	x := newTxn(old)
	change(x)
	next := x.finish(old)
	if len(x.changes)+len(x.private) == 0 {
		return old, nil
	}
	s.current.Store(next)
	return next, x.changes
}

// Snapshot is one immutable state of the world.
type Snapshot struct {
	tables
	revision uint64
	config   topology.Config
	compiled
	mesh *meshconfig.MeshConfig
	memo memo
}

// memo keeps the lists that nearly every builder asks for; filled on first use.
type memo struct {
	services        sync.Once
	serviceList     []*model.Service
	virtual         sync.Once
	virtualServices []*model.VirtualService
}

// Revision grows by one with each commit that changed something.
func (s *Snapshot) Revision() uint64 { return s.revision }

// Config is the topology configuration, unrecorded: for parts that don't build resources.
func (s *Snapshot) Config() topology.Config { return s.config }

// Mesh is Istio's MeshConfig with defaults applied, unrecorded. Not to be modified.
func (s *Snapshot) Mesh() *meshconfig.MeshConfig { return s.mesh }

// Workload finds a pod by name, unrecorded; nil if there is none.
func (s *Snapshot) Workload(k model.Key) *model.Workload {
	w, ok := s.workloads.get(k.String())
	if !ok {
		return nil
	}
	return s.placed(w)
}

// WorkloadsByIP finds the workloads with an address, unrecorded. Pods in the
// host's network are not found.
func (s *Snapshot) WorkloadsByIP(ip string) []*model.Workload {
	return s.placedAll(s.workloads.list(ByIP, ip))
}

// placed gives a workload its node's locality unless it has one of its own.
func (s *Snapshot) placed(w *model.Workload) *model.Workload {
	l := locality(w.Locality, w.Node, s.nodes.get)
	if l == w.Locality {
		return w
	}
	c := *w
	c.Locality = l
	return &c
}

func (s *Snapshot) placedAll(list []*model.Workload) []*model.Workload {
	for i, w := range list {
		list[i] = s.placed(w)
	}
	return list
}

// Namespace finds a namespace by name, unrecorded; nil if there is none.
func (s *Snapshot) Namespace(name string) *model.Namespace {
	n, _ := s.namespaces.get(name)
	return n
}

// HasAccount tells whether there is a ServiceAccount, unrecorded.
func (s *Snapshot) HasAccount(k model.Key) bool {
	_, ok := s.accounts.get(k.String())
	return ok
}

// Gateways lists all Gateways, unrecorded, oldest first.
func (s *Snapshot) Gateways() []*model.Gateway { return s.gateways.list(All, "") }

// Counts are the sizes of the tables, for people and metrics.
func (s *Snapshot) Counts() map[string]int {
	return map[string]int{
		"services": s.services.rows.Len(), "endpointSources": s.rows.rows.Len(),
		"workloads": s.workloads.rows.Len(), "nodes": s.nodes.rows.Len(), "accounts": s.accounts.rows.Len(),
		"namespaces": s.namespaces.rows.Len(), "secrets": s.secrets.rows.Len(),
		"virtualServices": s.virtualServices.rows.Len(), "destinationRules": s.destinationRules.rows.Len(),
		"gateways": s.gateways.rows.Len(), "sidecars": s.sidecars.rows.Len(),
		"peerAuthentications": s.peerAuthentications.rows.Len(),
	}
}

func (s *Snapshot) allServices() []*model.Service {
	s.memo.services.Do(func() { s.memo.serviceList = s.services.list(All, "") })
	return s.memo.serviceList
}

func (s *Snapshot) allVirtualServices() []*model.VirtualService {
	s.memo.virtual.Do(func() { s.memo.virtualServices = s.virtualServices.list(All, "") })
	return s.memo.virtualServices
}
