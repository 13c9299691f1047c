// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"slices"
	"unique"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpc "google.golang.org/genproto/googleapis/rpc/status"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// wildcard is the name that stands for every resource of a type.
const wildcard = "*"

// maxRefusal bounds what is kept of a client's error message.
const maxRefusal = 4096

// request is what either protocol can ask, in one form. Names are canonical
// copies, because subscriptions outlive messages and many streams share names.
type request struct {
	node  *core.Node
	url   string
	nonce string
	// refusal is the error of a NACK, or "".
	refusal string

	// Of delta requests.
	subscribe, unsubscribe []string
	versions               map[string]string

	// Of state-of-the-world requests.
	names   []string
	version string
}

func deltaRequest(m *discovery.DeltaDiscoveryRequest) request {
	return request{
		node:        m.GetNode(),
		url:         m.GetTypeUrl(),
		nonce:       m.GetResponseNonce(),
		refusal:     refusal(m.GetErrorDetail()),
		subscribe:   canonical(m.GetResourceNamesSubscribe()),
		unsubscribe: m.GetResourceNamesUnsubscribe(),
		versions:    m.GetInitialResourceVersions(),
	}
}

func worldRequest(m *discovery.DiscoveryRequest) request {
	return request{
		node:    m.GetNode(),
		url:     m.GetTypeUrl(),
		nonce:   m.GetResponseNonce(),
		refusal: refusal(m.GetErrorDetail()),
		names:   canonical(m.GetResourceNames()),
		version: m.GetVersionInfo(),
	}
}

func canonical(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = unique.Make(n).Value()
	}
	return out
}

func refusal(s *rpc.Status) string {
	switch {
	case s == nil:
		return ""
	case s.GetMessage() == "":
		return "rejected without a message"
	case len(s.GetMessage()) > maxRefusal:
		return s.GetMessage()[:maxRefusal]
	default:
		return s.GetMessage()
	}
}

// wildcardByDefault tells whether no names at all mean every resource.
func wildcardByDefault(t resource.Type) bool {
	return t == resource.Cluster || t == resource.Listener
}

// take handles one request. The acknowledgement and the subscription in it are
// independent of each other.
func (s *stream) take(r request) {
	t, ok := resource.TypeOf(r.url)
	if !ok {
		s.takeUnknown(r)
		return
	}
	w := &s.watches[t]
	if r.nonce != "" {
		s.settle(w, r)
	}
	if s.protocol == Delta {
		s.subscribeDelta(w, r)
		return
	}
	s.subscribeWorld(w, r)
}

func (s *stream) subscribeDelta(w *watch, r request) {
	if w.typ == resource.VirtualHost {
		s.askHosts(w, r)
		return
	}
	if !w.active {
		w.open()
		w.wildcard = slices.Contains(r.subscribe, wildcard) || wildcardByDefault(w.typ) && len(r.subscribe) == 0
		w.answer = wildcardByDefault(w.typ) && len(r.versions) == 0
		if len(r.versions) > 0 {
			w.have = make(map[string]uint64, len(r.versions))
			for n, v := range r.versions {
				w.have[n] = parseVersion(v)
			}
		}
		s.begin(w, r.subscribe)
		s.choose(w)
	}
	for _, n := range r.subscribe {
		if n == wildcard {
			s.subscribeAll(w)
			continue
		}
		w.names.add(n)
		s.expect(w, n)
		s.remember(w, n)
		if w.typ == resource.Route {
			s.askTable(w, n)
		}
	}
	for _, n := range r.unsubscribe {
		if n == wildcard {
			w.wildcard = false
			continue
		}
		w.names.remove(n)
		delete(w.due, n)
		s.letGo(w, n)
		if w.wildcard {
			// Still covered: the client is told what holds without its own subscription.
			if w.onDemand {
				w.names.add(n)
			}
			w.due[n] = asked
		}
	}
}

// begin prepares for the first request of a type: proxies of a class ask for the
// same thousands of names at once, and a set that has them is shared as it is.
func (s *stream) begin(w *watch, names []string) {
	if w.typ == resource.Endpoint {
		s.oweEarly(w)
	}
	w.due = make(map[string]reason, len(names))
	if set := s.server.names.known(names); set != nil {
		w.names = subscription{shared: set}
	} else if len(names) > 0 {
		w.names.more = make(map[string]struct{}, len(names))
	}
}

// subscribeAll makes the watch a wildcard one. What it has not been sent by
// name is then missing, so it starts from nothing.
func (s *stream) subscribeAll(w *watch) {
	if w.wildcard {
		return
	}
	w.wildcard = true
	w.answer = true
	w.sent = nil
}

// letGo forgets what was held back of a name that is no longer wanted, and what
// was wrong with it.
func (s *stream) letGo(w *watch, name string) {
	delete(w.refused, name)
	switch w.typ {
	case resource.Endpoint:
		delete(s.held, name)
	case resource.Route:
		s.watches[resource.VirtualHost].tables.forget(name)
	}
}

// expect notes that a name must be answered.
func (s *stream) expect(w *watch, name string) {
	kind := asked
	if w.typ == resource.Endpoint {
		if _, ok := s.owed[name]; ok {
			delete(s.owed, name)
			kind = owed
		}
	}
	w.due[name] = kind
}

func (s *stream) subscribeWorld(w *watch, r request) {
	first := !w.active
	if first {
		w.open()
		w.claimed = r.version
		s.begin(w, nil)
	} else if r.nonce != "" && r.nonce != w.nonce {
		// The client will say it again when it answers the response under way.
		s.server.metrics.stale.WithLabelValues(shortName(w.typ)).Inc()
		return
	}
	if r.nonce == "" && w.nonce != "" {
		// The client has begun anew behind the same stream, as a proxy of proxies
		// does: it is told everything that it asks for again.
		w.names = subscription{}
		w.answer = wildcardByDefault(w.typ)
	}
	var names subscription
	all := false
	for _, n := range r.names {
		if n == wildcard {
			all = true
			continue
		}
		names.add(n)
		if !w.names.has(n) {
			s.expect(w, n)
		}
	}
	if wildcardByDefault(w.typ) && len(r.names) == 0 && (first || w.wildcard) {
		all = true
	}
	for n := range w.names.all() {
		if !names.has(n) {
			delete(w.due, n)
			s.letGo(w, n)
		}
	}
	w.names = names
	if all {
		s.subscribeAll(w)
	} else {
		w.wildcard = false
	}
	w.answer = w.answer || (first && wildcardByDefault(w.typ))
}
