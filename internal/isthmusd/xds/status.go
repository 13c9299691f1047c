// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// ProxyStatus is how far one connected proxy has come. Immutable.
type ProxyStatus struct {
	ID        string `json:"id"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Type      string `json:"type"`
	// Identity that the proxy proved; "" for plaintext on loopback.
	Identity     string `json:"identity,omitempty"`
	EnvoyVersion string `json:"envoyVersion,omitempty"`
	Protocol     string `json:"protocol"`
	// HostsApart is true if the proxy takes virtual hosts one by one.
	HostsApart bool `json:"hostsApart,omitempty"`
	// OnDemand is true if it asks for clusters when it needs them.
	OnDemand  bool      `json:"onDemand,omitempty"`
	Connected time.Time `json:"connected"`
	// Newest is what the proxy should have.
	Newest Mark `json:"newest"`
	// Acknowledged is the oldest mark over the types that the proxy uses.
	Acknowledged Mark `json:"acknowledged"`
	// Behind is true when something is not acknowledged yet.
	Behind bool `json:"behind"`
	// Leaving are clusters that go when draining connections are over; they do
	// not count as behind.
	Leaving int          `json:"leaving,omitempty"`
	Types   TypeStatuses `json:"types"`

	// state that the proxy should have.
	state *resource.State
}

// TypeStatuses are those of the types that a proxy uses; in JSON by short name:
// cds, eds, lds, rds, vhds, sds. NOTE: no map, for one is made with every
// acknowledgement of every proxy.
type TypeStatuses [resource.NumTypes]TypeStatus

// ByName are those of the types that the proxy uses.
func (ts TypeStatuses) ByName() map[string]TypeStatus {
	used := map[string]TypeStatus{}
	for t, of := range ts {
		if of.used {
			used[shortName(resource.Type(t))] = of
		}
	}
	return used
}

// MarshalJSON implements json.Marshaler.
func (ts TypeStatuses) MarshalJSON() ([]byte, error) { return json.Marshal(ts.ByName()) }

// TypeStatus is how far a proxy has come with one type.
type TypeStatus struct {
	Acknowledged Mark `json:"acknowledged"`
	Behind       bool `json:"behind"`
	// Rejections since the stream began.
	Rejections int `json:"rejections,omitempty"`
	// Refused are the resources that the proxy rejected and that have not been
	// replaced; LastError is what it said last, perhaps of others.
	Refused   []Refused `json:"refused,omitempty"`
	LastError string    `json:"lastError,omitempty"`

	used bool
}

// Refused is a resource that a proxy rejected.
type Refused struct {
	Name string `json:"name"`
	// Error is what the proxy said of the response that it was in.
	Error string `json:"error"`
}

// Standing of a proxy with respect to an epoch.
type Standing string

// Standings; a proxy that is expected and not listed is absent.
const (
	Acknowledged Standing = "Acknowledged"
	Behind       Standing = "Behind"
	Rejected     Standing = "Rejected"
)

// Distribution tells how far an epoch has come, for the operator.
type Distribution struct {
	Epoch   string          `json:"epoch"`
	Proxies []ProxyStanding `json:"proxies"`
}

// ProxyStanding is one connected proxy of a Distribution.
type ProxyStanding struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	Type      string   `json:"type"`
	State     Standing `json:"state"`
}

// registry holds the live streams.
type registry struct {
	mu   sync.Mutex
	live map[*stream]struct{}
}

func (r *registry) add(s *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.live[s] = struct{}{}
}

func (r *registry) remove(s *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.live, s)
}

// others tells whether another proxy than this one should have the resource.
func (r *registry) others(s *stream, x *resource.Resource) bool {
	for _, st := range r.statuses() {
		if st.Namespace == s.proxy.Namespace && st.Name == s.proxy.Name {
			continue
		}
		if has := st.state.Sets[x.Type].Get(x.Name); has != nil && has.Version == x.Version {
			return true
		}
	}
	return false
}

func (r *registry) statuses() []*ProxyStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*ProxyStatus, 0, len(r.live))
	for s := range r.live {
		if st := s.status.Load(); st != nil {
			out = append(out, st)
		}
	}
	return out
}

// Status lists the connected proxies by namespace and name. Of one with several
// streams, as while it reconnects, the youngest counts.
func (s *Server) Status() []*ProxyStatus {
	all := s.streams.statuses()
	slices.SortFunc(all, func(a, b *ProxyStatus) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), b.Connected.Compare(a.Connected))
	})
	return slices.CompactFunc(all, func(a, b *ProxyStatus) bool {
		return a.Namespace == b.Namespace && a.Name == b.Name
	})
}

// Distribution tells which connected proxies have acknowledged the epoch in all
// types that they use.
func (s *Server) Distribution(epoch string) Distribution {
	d := Distribution{Epoch: epoch, Proxies: []ProxyStanding{}}
	for _, p := range s.Status() {
		d.Proxies = append(d.Proxies, ProxyStanding{
			Namespace: p.Namespace, Name: p.Name, Type: p.Type, State: p.standing(epoch),
		})
	}
	return d
}

func (p *ProxyStatus) standing(epoch string) Standing {
	for _, t := range p.Types {
		if len(t.Refused) > 0 {
			return Rejected
		}
	}
	if p.Acknowledged.Epoch == epoch {
		return Acknowledged
	}
	return Behind
}

// Syncz is the handler of /debug/syncz: how far each proxy has come, and what
// proxies rejected.
func (s *Server) Syncz() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]any{"proxies": s.Status(), "quarantined": s.Quarantined()})
	})
}

// DistributionHandler is the handler of /distribution?epoch=E.
func (s *Server) DistributionHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, s.Distribution(r.URL.Query().Get("epoch")))
	})
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, "marshal: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// The client is gone if this fails; there is nobody to tell.
	_, _ = w.Write(append(b, '\n'))
}

// publish makes the stream's standing known.
func (s *stream) publish() {
	newest := Mark{Revision: s.state.Revision, Epoch: s.state.Epoch}
	st := &ProxyStatus{
		ID:           s.proxy.ID,
		Namespace:    s.proxy.Namespace,
		Name:         s.proxy.Name,
		Type:         s.proxy.Type,
		Identity:     s.caller.Identity.String(),
		EnvoyVersion: s.proxy.EnvoyVersion,
		Protocol:     s.protocol.String(),
		HostsApart:   s.proxy.HostsApart,
		OnDemand:     s.proxy.OnDemand,
		Connected:    s.connected,
		Newest:       newest,
		Acknowledged: newest,
		Leaving:      len(s.leaving),
		state:        s.state,
	}
	for t := range s.watches {
		w := &s.watches[t]
		// A proxy without clusters or listeners has not begun.
		if !w.active && !wildcardByDefault(w.typ) && len(w.tables.accepted) == 0 {
			continue
		}
		ts := w.status(newest)
		if w.acked.Revision < st.Acknowledged.Revision {
			st.Acknowledged = w.acked
		}
		st.Behind = st.Behind || ts.Behind
		st.Types[t] = ts
	}
	s.status.Store(st)
}

func (w *watch) status(newest Mark) TypeStatus {
	ts := TypeStatus{
		Acknowledged: w.acked,
		Behind:       w.acked != newest,
		Rejections:   w.rejections,
		LastError:    w.lastError,
		used:         true,
	}
	if len(w.refused) == 0 {
		return ts // as nearly always
	}
	for _, name := range sortedNames(w.refused) {
		ts.Refused = append(ts.Refused, Refused{Name: name, Error: w.refused[name].why})
	}
	return ts
}
