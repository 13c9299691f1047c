// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package xds is the discovery server: ADS in both of its forms, delta and
// state of the world. It diffs and ships finished bytes and knows neither
// Envoy's API nor Kubernetes; what a proxy should have comes from a Source.
//
//	            notify                      acknowledgements, subscriptions
//	Source ──────────────► stream ◄───────────────────────────────── Envoy
//	  ▲   State(proxy)       │ pump: clusters → endpoints → listeners, routes → removals
//	  └──────────────────────┤
//	                         └── response = own head + resources shared by all streams
//
// One goroutine owns a stream's state; nothing of it is locked. What a client
// has is a reference to an immutable set plus a few exceptions, so a stream
// costs little beside the names that it subscribes to.
//
// The order of a change (make before break): clusters with their endpoints go
// at once; listeners and routes when the clusters are acknowledged or after
// Options.Patience; a cluster goes away only after listeners and routes without
// it are acknowledged and Options.Linger has passed, because a draining filter
// chain still uses it.
package xds

import (
	"context"
	"sync/atomic"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"k8s.io/utils/clock"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

const (
	// DefaultPatience is how long listeners and routes wait for clusters to be
	// acknowledged: Envoy withholds that while any cluster warms.
	DefaultPatience = 2 * time.Second
	// DefaultLinger is Envoy's drain time as our agent sets it (45 s), plus 5 s.
	DefaultLinger = 50 * time.Second
	// connectionAge bounds a connection, because Envoy opens new streams on an old
	// one with the certificate of its handshake. gRPC spreads it by 10 %.
	connectionAge = 45 * time.Minute
	// connectionGrace is what streams get after GOAWAY; ADS streams never end by
	// themselves.
	connectionGrace = 5 * time.Second
	// maxReceive of a request, as istiod has it.
	maxReceive = 4 << 20
	maxStreams = 100000
	// readBuffer suits acknowledgements, which are what proxies send.
	readBuffer = 4 << 10
	// window is what a proxy may send ahead of our reading: a request that names
	// every service of a large mesh. Its size is fixed, because gRPC finds a better
	// one by a ping and a window update for each acknowledgement.
	window = 256 << 10
)

// Source says what proxies should have. Safe for concurrent use.
type Source interface {
	// State is the newest for this proxy: the same pointer for all proxies of a
	// class while nothing changed, with the same pointers to unchanged sets.
	State(p *model.Proxy) (*resource.State, error)
	// Watch sends to the channel, without blocking, after each new revision.
	Watch(notify chan<- struct{}) (stop func())
	// Ready is false until every source has synced.
	Ready() bool
}

// Identities tells who opened a stream; see authn.Authenticator.
type Identities interface {
	Authenticate(ctx context.Context) (authn.Caller, error)
}

// Pods finds a Pod as of now; nil when there is none.
type Pods interface {
	Pod(k model.Key) *model.Workload
}

// Options of a Server. Source and Identities are required.
type Options struct {
	Source     Source
	Identities Identities
	// Pods describe the proxies. When set, a caller with an identity must have
	// one; nil takes nodes at their word.
	Pods Pods
	// Owners names the users' objects that a resource was made of, for those who look
	// into what was rejected; nil names none.
	Owners func(r *resource.Resource) []string
	// Patience and Linger default to the constants of this package.
	Patience, Linger time.Duration
	// Clock defaults to the real one.
	Clock clock.WithTicker
	// Metrics are registered here when set.
	Metrics prometheus.Registerer
	Log     logr.Logger
}

// Server serves ADS. Safe for concurrent use.
type Server struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	o          Options
	diffs      *diffs
	streams    registry
	quarantine quarantine
	names      *names
	history    history
	metrics    *metrics
	// responses that were sent, to anyone.
	responses atomic.Uint64
}

// New returns a Server; its gRPC server must be made with ServerOptions.
func New(o Options) *Server {
	if o.Patience == 0 {
		o.Patience = DefaultPatience
	}
	if o.Linger == 0 {
		o.Linger = DefaultLinger
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Owners == nil {
		o.Owners = func(*resource.Resource) []string { return nil }
	}
	s := &Server{o: o, diffs: newDiffs(), names: newNames(), metrics: newMetrics(o.Metrics)}
	s.streams.live = map[*stream]struct{}{}
	return s
}

// ServerOptions are what a gRPC server needs that Register is called with: the
// codec that shares bytes (other services use protobuf as ever), keepalive, and
// the bound on a connection's age.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(newCodec()),
		grpc.MaxRecvMsgSize(maxReceive),
		grpc.MaxConcurrentStreams(maxStreams),
		// Every proxy has a connection, and at rest it should hold little.
		grpc.ReadBufferSize(readBuffer),
		grpc.StaticStreamWindowSize(window),
		grpc.StaticConnWindowSize(window),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time:                  30 * time.Second,
			Timeout:               10 * time.Second,
			MaxConnectionAge:      connectionAge,
			MaxConnectionAgeGrace: connectionGrace,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime:             10 * time.Second,
			PermitWithoutStream: true,
		}),
	}
}

// Responses tells how many were sent until now.
func (s *Server) Responses() uint64 { return s.responses.Load() }

// Register adds ADS to a gRPC server that was made with ServerOptions.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	discovery.RegisterAggregatedDiscoveryServiceServer(r, s)
}

// DeltaAggregatedResources implements delta ADS.
func (s *Server) DeltaAggregatedResources(g discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return s.serve(g, Delta, func() (request, error) {
		m, err := g.Recv()
		if err != nil {
			return request{}, err
		}
		return deltaRequest(m), nil
	})
}

// StreamAggregatedResources implements state-of-the-world ADS.
func (s *Server) StreamAggregatedResources(g discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return s.serve(g, StateOfTheWorld, func() (request, error) {
		m, err := g.Recv()
		if err != nil {
			return request{}, err
		}
		return worldRequest(m), nil
	})
}
