// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// generation n: a cluster with endpoints, a listener and a route, all new, and a
// cluster that is in this one only.
func generation(n uint64) *resource.State {
	body := fmt.Appendf(nil, "generation %d", n)
	made := func(t resource.Type, name string) *resource.Resource {
		r := &resource.Resource{Type: t, Name: name, Version: n<<8 | uint64(t)<<4 | uint64(len(name)), Body: body}
		if t == resource.Cluster {
			r.ServiceName = "svc"
		}
		return r
	}
	return state(n, made(resource.Cluster, "c"), made(resource.Cluster, fmt.Sprint("only in ", n)), made(resource.Endpoint, "svc"),
		made(resource.Listener, "l"), made(resource.Route, "r"))
}

// held are weak pointers to a state and all that it is made of.
type held struct {
	state     weak.Pointer[resource.State]
	sets      []weak.Pointer[resource.Set]
	resources []weak.Pointer[resource.Resource]
}

func hold(st *resource.State) held {
	h := held{state: weak.Make(st)}
	for _, set := range st.Sets {
		h.sets = append(h.sets, weak.Make(set))
		for _, r := range set.List() {
			h.resources = append(h.resources, weak.Make(r))
		}
	}
	return h
}

func (h held) alive() (out []string) {
	if h.state.Value() != nil {
		out = append(out, "state")
	}
	for t, set := range h.sets {
		if set.Value() != nil {
			out = append(out, "set of "+shortName(resource.Type(t)))
		}
	}
	for _, r := range h.resources {
		if r := r.Value(); r != nil {
			out = append(out, shortName(r.Type)+" "+r.Name)
		}
	}
	return out
}

// TestAStuckProxyPinsNothing stops answering and looks at what the garbage
// collector finds of the states that it was sent.
func TestAStuckProxyPinsNothing(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		// step is the time between two generations.
		step        time.Duration
		generations uint64
	}{
		"through many revisions":       {step: 3 * time.Second, generations: 20},
		"through many, close together": {step: 100 * time.Millisecond, generations: 40},
		"for long":                     {step: time.Minute, generations: 3},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src, out := &fixed{state: generation(1)}, &reader{tb: t, protocol: Delta}
			st := opened(t, New(Options{Source: src}), Delta, out)
			now := time.Unix(0, 0)
			pump := func() {
				t.Helper()
				if err := st.refresh(); err != nil {
					t.Fatal(err)
				}
				if err := st.pump(now); err != nil {
					t.Fatal(err)
				}
			}
			for _, typ := range []resource.Type{resource.Cluster, resource.Endpoint, resource.Listener, resource.Route} {
				r := request{url: typ.URL()}
				if !wildcardByDefault(typ) {
					r.subscribe = []string{"svc", "r"}
				}
				st.take(r)
			}
			var past []held
			for n := uint64(2); n <= tc.generations; n++ {
				pump()
				past = append(past, hold(src.state))
				src.state = generation(n)
				now = now.Add(tc.step)
			}
			for range 2 { // The newest is reached in two steps: clusters, then the rest.
				pump()
				now = now.Add(DefaultPatience)
			}
			pump()
			now = now.Add(farBehind)
			pump()
			if st.watches[resource.Cluster].acked.Revision != 0 {
				t.Fatal("something was acknowledged")
			}
			runtime.GC()
			// Shared steps are forgotten when the next one is made.
			st.server.diffs.between(resource.NewSet(nil), resource.NewSet(nil))
			runtime.GC()
			for i, h := range past {
				if alive := h.alive(); len(alive) > 0 {
					t.Errorf("of generation %d of %d there is still %v", i+1, tc.generations, alive)
				}
			}
			runtime.KeepAlive(st)
		})
	}
}

func TestWhenAResponseIsLetGo(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		age      time.Duration
		revision uint64
		late     bool
		want     bool
	}{
		"young and few revisions":         {age: 9 * time.Second, revision: 9, late: true},
		"old":                             {age: 10 * time.Second, revision: 1, late: true, want: true},
		"more than eight revisions":       {age: 3 * time.Second, revision: 10, late: true, want: true},
		"others wait for it, whatever it": {age: time.Second, revision: 10},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := time.Unix(100, 0)
			w := &watch{flights: []flight{{sentAt: now.Add(-tc.age), late: tc.late, state: generation(1)}}}
			at, scheduled := w.letGoAt()
			if scheduled != tc.late || scheduled && !at.Equal(now.Add(farBehind-tc.age)) {
				t.Errorf("let go at %v, %v", at, scheduled)
			}
			if w.letGo(now, tc.revision); w.flights[0].gone != tc.want {
				t.Errorf("let go: %v", !tc.want)
			}
		})
	}
}

// TestAnAnswerAfterAllCounts lets a proxy answer what was let go.
func TestAnAnswerAfterAllCounts(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		refusal string
		want    []string
	}{
		"it accepts": {},
		"it rejects": {refusal: "l: no", want: []string{"l"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src, out := &fixed{state: generation(1)}, &reader{tb: t, protocol: Delta}
			s := New(Options{Source: src})
			st := s.newStream(Delta, out, authn.Caller{Method: authn.Anonymous})
			st.claim = &model.Proxy{ID: "n", Name: "cart-1", Namespace: "shop", Type: sidecar}
			st.proxy = st.claim
			if err := st.refresh(); err != nil {
				t.Fatal(err)
			}
			st.take(request{url: resource.Listener.URL()})
			for i := range 3 {
				if err := st.pump(time.Unix(int64(i)*20, 0)); err != nil {
					t.Fatal(err)
				}
			}
			w := &st.watches[resource.Listener]
			if len(w.flights) != 1 || !w.flights[0].gone {
				t.Fatalf("flights = %+v, want one that was let go", w.flights)
			}
			st.take(request{url: resource.Listener.URL(), nonce: out.nonces[0], refusal: tc.refusal})
			if err := st.pump(time.Unix(61, 0)); err != nil {
				t.Fatal(err)
			}
			if got := sortedNames(w.refused); fmt.Sprint(got) != fmt.Sprint(tc.want) || len(w.flights) != 0 {
				t.Errorf("refused = %v, flights = %v", got, w.flights)
			}
		})
	}
}
