// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package kubeapi is as much of a Kubernetes API server as a control plane under
// measurement needs: it lists, watches, takes objects and reviews tokens, over
// plain HTTP and without delay. It validates nothing and belongs in no test of
// behaviour.
package kubeapi

import (
	"encoding/json"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"sync"

	"github.com/isthmus-mesh/isthmus/test/bench/mesh"
)

// item is a stored object. It is never changed.
type item struct {
	namespace, name string
	raw             []byte
}

// event is what a watch tells.
type event struct {
	revision int64
	kind     string
	item     *item
}

// table holds the objects of one resource, and what happened to them.
type table struct {
	items map[string]*item
	log   []event
}

// Server is the API server. Its zero value is not usable; New makes one.
type Server struct {
	mu       sync.Mutex
	revision int64
	tables   map[string]*table
	// changed is closed and replaced at each change.
	changed chan struct{}
}

// New returns a Server with nothing in it.
func New() *Server {
	return &Server{tables: map[string]*table{}, changed: make(chan struct{})}
}

// kinds of objects by their plural.
var kinds = map[string]string{
	"namespaces": "Namespace", "nodes": "Node", "services": "Service", "pods": "Pod", "secrets": "Secret", "serviceaccounts": "ServiceAccount",
	"configmaps": "ConfigMap", "endpointslices": "EndpointSlice", "gateways": "Gateway", "sidecars": "Sidecar",
	"virtualservices": "VirtualService", "destinationrules": "DestinationRule", "serviceentries": "ServiceEntry",
	"workloadentries": "WorkloadEntry", "workloadgroups": "WorkloadGroup", "envoyfilters": "EnvoyFilter",
	"proxyconfigs": "ProxyConfig", "telemetries": "Telemetry", "peerauthentications": "PeerAuthentication",
	"authorizationpolicies": "AuthorizationPolicy", "requestauthentications": "RequestAuthentication",
}

// plurals of kinds.
var plurals = func() map[string]string {
	out := map[string]string{}
	for plural, kind := range kinds {
		out[kind] = plural
	}
	return out
}()

// resourceOf is the group and plural of an object's kind, as in "apps/deployments".
func resourceOf(o mesh.Object) string {
	group, _, grouped := strings.Cut(o.Version(), "/")
	if !grouped {
		group = ""
	}
	return group + "/" + plurals[o.Kind()]
}

func (s *Server) table(resource string) *table {
	t := s.tables[resource]
	if t == nil {
		t = &table{items: map[string]*item{}}
		s.tables[resource] = t
	}
	return t
}

// Put creates or replaces an object.
func (s *Server) Put(o mesh.Object) error {
	return s.put(resourceOf(o), o)
}

func (s *Server) put(resource string, o mesh.Object) error {
	namespace, name := o.Name()
	key := namespace + "/" + name
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	metadata := o["metadata"].(map[string]any)
	metadata["resourceVersion"] = strconv.FormatInt(s.revision, 10)
	metadata["uid"] = "uid-of-" + key
	raw, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("write %s %s: %w", resource, key, err)
	}
	t, kind := s.table(resource), "ADDED"
	if t.items[key] != nil {
		kind = "MODIFIED"
	}
	it := &item{namespace: namespace, name: name, raw: raw}
	t.items[key] = it
	t.log = append(t.log, event{revision: s.revision, kind: kind, item: it})
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// selection is which objects of a resource are asked for; "" is all.
type selection struct{ resource, namespace, name string }

func (q selection) has(i *item) bool {
	return (q.namespace == "" || q.namespace == i.namespace) && (q.name == "" || q.name == i.name)
}

// list is the objects of a selection, by name, and the revision that they are of.
func (s *Server) list(q selection) ([]*item, int64) {
	s.mu.Lock()
	var out []*item
	for _, i := range s.table(q.resource).items {
		if q.has(i) {
			out = append(out, i)
		}
	}
	revision := s.revision
	s.mu.Unlock()
	sort.Slice(out, func(a, b int) bool {
		if out[a].namespace != out[b].namespace {
			return out[a].namespace < out[b].namespace
		}
		return out[a].name < out[b].name
	})
	return out, revision
}

// since is what happened to a selection after a revision, up to which one that
// is, and a channel that is closed when there is more.
func (s *Server) since(q selection, revision int64) (events []event, now int64, more <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.table(q.resource).log
	for _, e := range log[sort.Search(len(log), func(i int) bool { return log[i].revision > revision }):] {
		if q.has(e.item) {
			events = append(events, e)
		}
	}
	return events, s.revision, s.changed
}
