// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// fixed is a Source with one state at a time.
type fixed struct{ state *resource.State }

func (f *fixed) State(*model.Proxy) (*resource.State, error) { return f.state, nil }
func (f *fixed) Watch(chan<- struct{}) func()                { return func() {} }
func (f *fixed) Ready() bool                                 { return true }

func state(revision uint64, rs ...*resource.Resource) *resource.State {
	st := &resource.State{Revision: revision}
	for t := range resource.NumTypes {
		var of []*resource.Resource
		for _, r := range rs {
			if r.Type == t {
				of = append(of, r)
			}
		}
		st.Sets[t] = resource.NewSet(of)
	}
	return st
}

// opened is a stream at rest that sends to out.
func opened(tb testing.TB, s *Server, p Protocol, out sender) *stream {
	tb.Helper()
	st := s.newStream(p, out, authn.Caller{Method: authn.Anonymous})
	st.claim = &model.Proxy{ID: "n", Name: "cart-1", Namespace: "shop", Type: sidecar}
	st.proxy = st.claim
	if err := st.refresh(); err != nil {
		tb.Fatal(err)
	}
	return st
}

func FuzzParseNode(f *testing.F) {
	add := func(id string, md map[string]any) {
		s, err := structpb.NewStruct(md)
		if err != nil {
			f.Fatal(err)
		}
		b, err := proto.Marshal(&core.Node{Id: id, Metadata: s})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	add("sidecar~10.0.0.7~cart-1.shop~shop.svc.cluster.local", map[string]any{"NAMESPACE": "shop", "LABELS": map[string]any{"app": "cart"}})
	add("router~~gw.shop~x", map[string]any{"INSTANCE_IPS": "10.0.0.1, fd00::1%eth0", "LABELS": map[string]any{"n": 1}})
	add("sidecar~1.2.3.4~.~", nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		n := &core.Node{}
		if proto.Unmarshal(b, n) != nil {
			return
		}
		p, err := parseNode(n)
		if err != nil {
			return
		}
		if p.Name == "" || p.Namespace == "" || strings.Contains(p.Namespace, "~") || len(p.IPs) == 0 || p.Interception == "" {
			t.Errorf("accepted %+v", p)
		}
	})
}

// reader is a client that reads every message as Envoy would.
type reader struct {
	tb       testing.TB
	protocol Protocol
	nonces   []string
}

func (r *reader) SendMsg(m any) error {
	b, err := newCodec().Marshal(m)
	if err != nil {
		return err
	}
	if r.protocol == Delta {
		out := &discovery.DeltaDiscoveryResponse{}
		if err := proto.Unmarshal(b.Materialize(), out); err != nil {
			r.tb.Errorf("unreadable response: %v", err)
		}
		r.nonces = append(r.nonces, out.GetNonce())
		return nil
	}
	out := &discovery.DiscoveryResponse{}
	if err := proto.Unmarshal(b.Materialize(), out); err != nil {
		r.tb.Errorf("unreadable response: %v", err)
	}
	r.nonces = append(r.nonces, out.GetNonce())
	return nil
}

// FuzzRequests throws any requests, in any order, at a stream whose state
// changes meanwhile: it must not fail, and must come to rest.
func FuzzRequests(f *testing.F) {
	for _, m := range []proto.Message{
		&discovery.DeltaDiscoveryRequest{TypeUrl: resource.Cluster.URL()},
		&discovery.DeltaDiscoveryRequest{TypeUrl: resource.Endpoint.URL(), ResourceNamesSubscribe: []string{"a", "x"}, InitialResourceVersions: map[string]string{"a": "1"}},
		&discovery.DiscoveryRequest{TypeUrl: resource.Listener.URL(), ResponseNonce: "1"},
		&discovery.DeltaDiscoveryRequest{TypeUrl: nameTable},
		&discovery.DeltaDiscoveryRequest{TypeUrl: "istio.io/debug/syncz", ResourceNamesSubscribe: []string{"a"}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, b, b)
	}
	cluster := func(v uint64) *resource.Resource {
		return &resource.Resource{Type: resource.Cluster, Name: "a", Version: v, Upstream: resource.Upstream{ServiceName: "a"}, Body: []byte("a")}
	}
	end := func(v uint64) *resource.Resource {
		return &resource.Resource{Type: resource.Endpoint, Name: "a", Version: v, Body: []byte("a")}
	}
	states := []*resource.State{state(1, cluster(1), end(1)), state(2, cluster(2), end(2)), state(3, end(2))}
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		for _, p := range []Protocol{Delta, StateOfTheWorld} {
			src := &fixed{}
			src.state = states[0]
			out := &reader{tb: t, protocol: p}
			st := opened(t, New(Options{Source: src}), p, out)
			now := time.Unix(0, 0)
			for i, raw := range [][]byte{a, b, c, a} {
				src.state = states[i%len(states)]
				if err := st.refresh(); err != nil {
					t.Fatal(err)
				}
				if r, ok := parsed(p, raw); ok {
					st.take(r)
				}
				now = now.Add(time.Second)
				if err := st.pump(now); err != nil {
					t.Fatal(err)
				}
			}
			for range 5 { // More than enough for patience and linger.
				now = now.Add(time.Minute)
				if err := st.pump(now); err != nil {
					t.Fatal(err)
				}
			}
			before := len(out.nonces)
			if err := st.pump(now); err != nil || len(out.nonces) != before {
				t.Errorf("the stream does not come to rest: %v", err)
			}
		}
	})
}

func parsed(p Protocol, raw []byte) (request, bool) {
	if p == Delta {
		m := &discovery.DeltaDiscoveryRequest{}
		if proto.Unmarshal(raw, m) != nil {
			return request{}, false
		}
		return deltaRequest(m), true
	}
	m := &discovery.DiscoveryRequest{}
	if proto.Unmarshal(raw, m) != nil {
		return request{}, false
	}
	return worldRequest(m), true
}
