// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/xds"
)

// idler is a client that reads only when the test does, in either protocol.
type idler struct {
	t *testing.T
	// read is the content of the next endpoints, acknowledged.
	read func() string
}

// window is what a client takes without reading it: the least that gRPC knows.
const window = 64 << 10

const loadAssignments = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"

// narrow is a connection on which little may be sent that nobody reads.
func (m *mesh) narrow() *grpc.ClientConn {
	return m.dial(grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(window))
}

func (m *mesh) idleDelta() *idler {
	m.t.Helper()
	s, err := discovery.NewAggregatedDiscoveryServiceClient(m.narrow()).DeltaAggregatedResources(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	send(m.t, s, &discovery.DeltaDiscoveryRequest{Node: node(cartNode), TypeUrl: loadAssignments, ResourceNamesSubscribe: []string{"svc"}})
	return &idler{t: m.t, read: func() string {
		r, err := s.Recv()
		if err != nil {
			m.t.Fatal(err)
		}
		send(m.t, s, &discovery.DeltaDiscoveryRequest{TypeUrl: loadAssignments, ResponseNonce: r.GetNonce()})
		return string(r.GetResources()[0].GetResource().GetValue())
	}}
}

func (m *mesh) idleWorld() *idler {
	m.t.Helper()
	s, err := discovery.NewAggregatedDiscoveryServiceClient(m.narrow()).StreamAggregatedResources(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	names := []string{"svc"}
	send(m.t, s, &discovery.DiscoveryRequest{Node: node(cartNode), TypeUrl: loadAssignments, ResourceNames: names})
	return &idler{t: m.t, read: func() string {
		r, err := s.Recv()
		if err != nil {
			m.t.Fatal(err)
		}
		send(m.t, s, &discovery.DiscoveryRequest{TypeUrl: loadAssignments, ResponseNonce: r.GetNonce(), VersionInfo: r.GetVersionInfo(), ResourceNames: names})
		return string(r.GetResources()[0].GetValue())
	}}
}

func send[M proto.Message](t *testing.T, s interface{ Send(M) error }, m M) {
	t.Helper()
	if err := s.Send(m); err != nil {
		t.Fatal(err)
	}
}

// TestAClientThatDoesNotRead stops reading through thirty changes. The others
// get each of them; no more is kept for the one that does not read than what was
// under way, and it then gets the newest state and not every step to it.
func TestAClientThatDoesNotRead(t *testing.T) {
	const changes, underWay = 30, 3
	for name, idle := range map[string]func(*mesh) *idler{"delta": (*mesh).idleDelta, "state of the world": (*mesh).idleWorld} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				m := start(t)
				filler := strings.Repeat("x", 2*window)
				content := func(n int) string { return fmt.Sprint(n) + filler }
				m.source.set(endpoints("svc", content(0)))
				stuck := idle(m)
				if got := stuck.read(); got != content(0) {
					t.Fatalf("at first: %.10q", got)
				}
				other := m.delta("sidecar~10.0.0.8~cart-2.shop~shop.svc.cluster.local")
				other.subscribe(resource.Endpoint, "svc")
				other.ack(other.next())

				var past []weak.Pointer[byte]
				for n := 1; n <= changes; n++ {
					r := endpoints("svc", content(n))
					past = append(past, weak.Make(&r.Body[0]))
					m.source.set(r)
					g := other.want(resource.Endpoint, []string{"svc"})
					if g.resources["svc"] != content(n) {
						t.Fatalf("the other got %.10q, want change %d", g.resources["svc"], n)
					}
					other.ack(g)
					pass(xds.DefaultPatience + time.Second)
					runtime.GC() // What is kept of steps that are past goes with the next one.
				}
				alive := 0
				for _, r := range past {
					if r.Value() != nil {
						alive++
					}
				}
				// The newest, the one before it, and what is under way.
				if alive > underWay+2 {
					t.Errorf("of %d changes %d are kept", changes, alive)
				}

				var steps []string
				for last := ""; last != content(changes); {
					last = stuck.read()
					steps = append(steps, strings.TrimRight(last, "x"))
					synctest.Wait()
				}
				if len(steps) > underWay+1 {
					t.Errorf("it gets %v, want no more than %d before the newest", steps, underWay)
				}
			})
		})
	}
}
