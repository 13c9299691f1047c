// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// world is a scripted state-of-the-world client. Contents of resources must be
// told apart, for the protocol names none.
type world struct {
	t      *testing.T
	stream discovery.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	in     chan *got
	node   *core.Node
	cancel context.CancelFunc
	names  map[resource.Type][]string
}

func (m *mesh) world(id string) *world {
	m.t.Helper()
	ctx, cancel := context.WithCancel(m.t.Context())
	s, err := discovery.NewAggregatedDiscoveryServiceClient(m.conn).StreamAggregatedResources(ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	w := &world{t: m.t, stream: s, in: make(chan *got, 100), node: node(id), cancel: cancel, names: map[resource.Type][]string{}}
	go func() {
		for {
			r, err := s.Recv()
			if err != nil {
				return
			}
			t, _ := resource.TypeOf(r.GetTypeUrl())
			g := &got{typ: t, resources: map[string]string{}, nonce: r.GetNonce(), version: r.GetVersionInfo()}
			for _, x := range r.GetResources() {
				g.resources[string(x.GetValue())] = x.GetTypeUrl()
			}
			w.in <- g
		}
	}()
	return w
}

func (w *world) send(r *discovery.DiscoveryRequest) {
	w.t.Helper()
	r.Node, w.node = w.node, nil
	if err := w.stream.Send(r); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) subscribe(t resource.Type, version string, names ...string) {
	w.t.Helper()
	w.names[t] = names
	w.send(&discovery.DiscoveryRequest{TypeUrl: t.URL(), ResourceNames: names, VersionInfo: version})
}

// answer acknowledges, with the names that the client now wants.
func (w *world) answer(g *got, names ...string) {
	w.t.Helper()
	if names != nil {
		w.names[g.typ] = names
	}
	w.send(&discovery.DiscoveryRequest{TypeUrl: g.typ.URL(), ResourceNames: w.names[g.typ], VersionInfo: g.version, ResponseNonce: g.nonce})
}

func (w *world) want(t resource.Type, contents ...string) *got {
	w.t.Helper()
	synctest.Wait()
	select {
	case g := <-w.in:
		if g.typ != t || !slices.Equal(g.names(), contents) {
			w.t.Fatalf("got type %d with %v, want type %d with %v", g.typ, g.names(), t, contents)
		}
		return g
	default:
		w.t.Fatalf("no response, want type %d with %v", t, contents)
		return nil
	}
}

func (w *world) quiet() {
	w.t.Helper()
	synctest.Wait()
	select {
	case g := <-w.in:
		w.t.Fatalf("unexpected response: type %d with %v", g.typ, g.names())
	default:
	}
}

func TestWorldSubscribeAndChange(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(cluster("a", "ca", "sa"), cluster("b", "cb", "sb"), endpoints("sa", "ea"), endpoints("sb", "eb"), listener("l", "l1"))
		w := m.world(cartNode)
		w.subscribe(resource.Cluster, "")
		w.answer(w.want(resource.Cluster, "ca", "cb"))
		w.subscribe(resource.Endpoint, "", "sa")
		g := w.want(resource.Endpoint, "ea")
		w.answer(g, "sa", "sb")
		w.answer(w.want(resource.Endpoint, "eb"))
		w.subscribe(resource.Listener, "")
		w.answer(w.want(resource.Listener, "l1"))
		w.quiet()

		// Clusters come whole, endpoints only as far as they changed; the changed
		// cluster's endpoints go again.
		m.source.set(cluster("a", "ca", "sa"), cluster("b", "cb2", "sb"), endpoints("sa", "ea2"), endpoints("sb", "eb"), listener("l", "l1"))
		w.answer(w.want(resource.Cluster, "ca", "cb2"))
		w.answer(w.want(resource.Endpoint, "ea2", "eb"))
		w.quiet()
		if st := m.server.Status()[0]; st.Behind {
			t.Errorf("status = %+v", st)
		}
	})
}

func TestWorldBeginsAnewOnTheSameStream(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(cluster("a", "ca", "sa"), endpoints("sa", "ea"))
		w := m.world(cartNode)
		for range 2 {
			w.subscribe(resource.Cluster, "")
			w.answer(w.want(resource.Cluster, "ca"))
			w.subscribe(resource.Endpoint, "", "sa")
			w.answer(w.want(resource.Endpoint, "ea"))
			w.quiet()
		}
	})
}

func TestWorldClustersLeaveLast(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(cluster("a", "ca", ""), cluster("b", "cb", ""), listener("l", "l1"))
		w := m.world(cartNode)
		w.subscribe(resource.Cluster, "")
		w.answer(w.want(resource.Cluster, "ca", "cb"))
		w.subscribe(resource.Listener, "")
		w.answer(w.want(resource.Listener, "l1"))

		m.source.set(cluster("a", "ca", ""), listener("l", "l2"))
		w.answer(w.want(resource.Listener, "l2"))
		pass(20 * time.Second)
		m.source.set(cluster("a", "ca2", ""), listener("l", "l2"))
		w.answer(w.want(resource.Cluster, "ca2", "cb")) // Old and new together.
		pass(30 * time.Second)
		w.answer(w.want(resource.Cluster, "ca2"))
		w.quiet()
	})
}

func TestWorldStaleAndRejected(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(endpoints("a", "a1"), endpoints("b", "b1"))
		w := m.world(cartNode)
		w.subscribe(resource.Endpoint, "", "a")
		old := w.want(resource.Endpoint, "a1")
		m.source.set(endpoints("a", "a2"), endpoints("b", "b1"))
		newer := w.want(resource.Endpoint, "a2")
		w.answer(old, "a", "b") // Stale: it will say so again.
		w.quiet()
		w.answer(newer, "a", "b")
		g := w.want(resource.Endpoint, "b1")
		w.send(&discovery.DiscoveryRequest{TypeUrl: g.typ.URL(), ResourceNames: []string{"a", "b"}, ResponseNonce: g.nonce, VersionInfo: newer.version, ErrorDetail: &status.Status{Message: "bad b"}})
		w.quiet()
		if st := m.server.Status()[0]; st.Types.ByName()["eds"].Rejections != 1 {
			t.Errorf("status = %+v", st)
		}
		m.source.set(endpoints("a", "a2"), endpoints("b", "b2"))
		g = w.want(resource.Endpoint, "b2")
		w.answer(g, []string{}...)
		w.send(&discovery.DiscoveryRequest{TypeUrl: g.typ.URL(), VersionInfo: g.version, ResponseNonce: g.nonce})
		synctest.Wait()
		m.source.set(endpoints("a", "a3"), endpoints("b", "b3"))
		w.quiet() // Nothing is subscribed any more.
	})
}

func TestWorldReconnect(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		m := start(t)
		m.source.set(cluster("a", "ca", "sa"), endpoints("sa", "ea"), listener("l", "l1"))
		w := m.world(cartNode)
		w.subscribe(resource.Cluster, "")
		cds := w.want(resource.Cluster, "ca")
		w.answer(cds)
		w.subscribe(resource.Endpoint, "", "sa")
		eds := w.want(resource.Endpoint, "ea")
		w.answer(eds)
		w.cancel()

		same := m.world(cartNode)
		same.subscribe(resource.Cluster, cds.version)
		same.subscribe(resource.Endpoint, eds.version, "sa")
		same.quiet()
		m.source.set(cluster("a", "ca", "sa"), endpoints("sa", "ea2"), listener("l", "l1"))
		same.answer(same.want(resource.Endpoint, "ea2"))
		same.cancel()

		m.source.set(cluster("a", "ca2", "sa"), endpoints("sa", "ea"), listener("l", "l1"))
		again := m.world(cartNode)
		again.subscribe(resource.Cluster, cds.version)
		again.answer(again.want(resource.Cluster, "ca2"))
		again.subscribe(resource.Endpoint, eds.version, "sa")
		again.answer(again.want(resource.Endpoint, "ea")) // Owed to the changed cluster.
		again.quiet()
	})
}

// soon is the next response, or nil when the server has nothing more to do.
func (w *world) soon() *got {
	synctest.Wait()
	select {
	case g := <-w.in:
		return g
	default:
		return nil
	}
}
