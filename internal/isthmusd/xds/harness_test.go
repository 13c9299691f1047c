// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"context"
	"hash/fnv"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/isthmus-mesh/isthmus/internal/identity"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/xds"
)

// source is a Source whose state the test sets.
type source struct {
	mu       sync.Mutex
	state    *resource.State
	unready  bool
	watchers map[chan<- struct{}]struct{}
	seen     *model.Proxy
}

func (s *source) State(p *model.Proxy) (*resource.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = p
	return s.state, nil
}

func (s *source) Ready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.unready
}

func (s *source) Watch(notify chan<- struct{}) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watchers == nil {
		s.watchers = map[chan<- struct{}]struct{}{}
	}
	s.watchers[notify] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, notify)
	}
}

// set publishes the next revision; types that the resources do not touch keep
// their sets.
func (s *source) set(rs ...*resource.Resource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := &resource.State{Revision: 1, Epoch: "e1"}
	if s.state != nil {
		next.Revision = s.state.Revision + 1
		next.Epoch = "e" + strconv.FormatUint(next.Revision, 10)
	}
	for t := range resource.NumTypes {
		var of []*resource.Resource
		for _, r := range rs {
			if r.Type == t {
				of = append(of, r)
			}
		}
		next.Sets[t] = resource.NewSet(of)
		if s.state != nil && slices.EqualFunc(s.state.Sets[t].List(), next.Sets[t].List(), sameResource) {
			next.Sets[t] = s.state.Sets[t]
		}
	}
	next.Unasked = resource.Unasked(next.Sets[resource.Cluster], next.Sets[resource.Route], next.Sets[resource.VirtualHost])
	if s.state != nil && slices.EqualFunc(s.state.Unasked.List(), next.Unasked.List(), sameResource) {
		next.Unasked = s.state.Unasked
	}
	s.state = next
	for w := range s.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

func sameResource(a, b *resource.Resource) bool { return a.Name == b.Name && a.Version == b.Version }

func made(t resource.Type, name, content string) *resource.Resource {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name + "\x00" + content))
	return &resource.Resource{Type: t, Name: name, Version: h.Sum64(), Body: []byte(content)}
}

// cluster of type EDS whose endpoints are named like it unless service says otherwise.
func cluster(name, content, service string) *resource.Resource {
	r := made(resource.Cluster, name, content)
	r.ServiceName = service
	return r
}

func endpoints(name, content string) *resource.Resource {
	return made(resource.Endpoint, name, content)
}
func listener(name, content string) *resource.Resource {
	return made(resource.Listener, name, content)
}
func route(name, content string) *resource.Resource { return made(resource.Route, name, content) }

type callers struct{ caller authn.Caller }

func (c callers) Authenticate(context.Context) (authn.Caller, error) { return c.caller, nil }

type pods map[model.Key]*model.Workload

func (p pods) Pod(k model.Key) *model.Workload { return p[k] }

// mesh is a server over an in-memory listener.
type mesh struct {
	t      *testing.T
	source *source
	server *xds.Server
	conn   *grpc.ClientConn
	// dial makes a connection beside conn.
	dial func(...grpc.DialOption) *grpc.ClientConn
}

// inBubble runs a test whose time passes only when everything is idle.
func inBubble(t *testing.T, run func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, run)
}

func start(t *testing.T, options ...func(*xds.Options)) *mesh {
	t.Helper()
	m := &mesh{t: t, source: &source{}}
	o := xds.Options{Source: m.source, Identities: callers{authn.Caller{Method: authn.Anonymous}}}
	for _, f := range options {
		f(&o)
	}
	m.server = xds.New(o)
	m.source.set()
	lis := bufconn.Listen(1 << 20)
	g := grpc.NewServer(xds.ServerOptions()...)
	m.server.Register(g)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(lis)
	}()
	t.Cleanup(func() {
		g.Stop()
		<-done
	})
	m.dial = func(o ...grpc.DialOption) *grpc.ClientConn {
		conn, err := grpc.NewClient("passthrough:///bufconn", append(o,
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return lis.Dial() }),
			grpc.WithTransportCredentials(insecure.NewCredentials()))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	m.conn = m.dial()
	return m
}

func verified(namespace, account string) func(*xds.Options) {
	return func(o *xds.Options) {
		o.Identities = callers{authn.Caller{
			Method:   authn.Certificate,
			Identity: identity.SPIFFE{TrustDomain: "cluster.local", Namespace: namespace, ServiceAccount: account},
		}}
	}
}

func node(id string) *core.Node { return &core.Node{Id: id} }

const cartNode = "sidecar~10.0.0.7~cart-1.shop~shop.svc.cluster.local"

// got is a response of either protocol, reduced to what tests compare.
type got struct {
	typ       resource.Type
	resources map[string]string // name (or content, for sotw) to content
	removed   []string
	nonce     string
	version   string
	versions  map[string]string
}

func (g *got) names() []string {
	out := make([]string, 0, len(g.resources))
	for n := range g.resources {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// client is a scripted delta client.
type client struct {
	t      *testing.T
	stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	in     chan *got
	end    chan error
	id     string
	node   *core.Node
	cancel context.CancelFunc
}

// pod is the name of the client's pod.
func (c *client) pod() string {
	name, _, _ := strings.Cut(strings.Split(c.id, "~")[2], ".")
	return name
}

func (m *mesh) delta(id string) *client {
	m.t.Helper()
	ctx, cancel := context.WithCancel(m.t.Context())
	s, err := discovery.NewAggregatedDiscoveryServiceClient(m.conn).DeltaAggregatedResources(ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	c := &client{t: m.t, stream: s, in: make(chan *got, 100), end: make(chan error, 1), id: id, node: node(id), cancel: cancel}
	go func() {
		for {
			r, err := s.Recv()
			if err != nil {
				c.end <- err
				return
			}
			t, _ := resource.TypeOf(r.GetTypeUrl())
			g := &got{typ: t, resources: map[string]string{}, versions: map[string]string{}, removed: r.GetRemovedResources(), nonce: r.GetNonce()}
			for _, x := range r.GetResources() {
				g.resources[x.GetName()] = string(x.GetResource().GetValue())
				g.versions[x.GetName()] = x.GetVersion()
				if x.GetResource().GetTypeUrl() != r.GetTypeUrl() {
					c.end <- context.DeadlineExceeded
				}
			}
			c.in <- g
		}
	}()
	return c
}

func (c *client) send(r *discovery.DeltaDiscoveryRequest) {
	c.t.Helper()
	r.Node, c.node = c.node, nil
	if err := c.stream.Send(r); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) subscribe(t resource.Type, names ...string) {
	c.t.Helper()
	c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: t.URL(), ResourceNamesSubscribe: names})
}

func (c *client) ack(g *got) {
	c.t.Helper()
	c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: g.typ.URL(), ResponseNonce: g.nonce})
}

func (c *client) nack(g *got, why string) {
	c.t.Helper()
	c.send(&discovery.DeltaDiscoveryRequest{TypeUrl: g.typ.URL(), ResponseNonce: g.nonce, ErrorDetail: &status.Status{Message: why}})
}

// next is the next response, as soon as the server has nothing more to do.
func (c *client) next() *got {
	c.t.Helper()
	synctest.Wait()
	select {
	case g := <-c.in:
		return g
	default:
		c.t.Fatal("no response")
		return nil
	}
}

// want expects the next response to be of this type and to bring these names.
func (c *client) want(t resource.Type, added []string, removed ...string) *got {
	c.t.Helper()
	g := c.next()
	if g.typ != t || !slices.Equal(g.names(), added) || !slices.Equal(g.removed, removed) {
		c.t.Fatalf("got type %d with %v without %v, want type %d with %v without %v", g.typ, g.names(), g.removed, t, added, removed)
	}
	return g
}

// quiet expects that nothing comes.
func (c *client) quiet() {
	c.t.Helper()
	synctest.Wait()
	select {
	case g := <-c.in:
		c.t.Fatalf("unexpected response: type %d with %v without %v", g.typ, g.names(), g.removed)
	case err := <-c.end:
		c.t.Fatalf("stream ended: %v", err)
	default:
	}
}

// ended is the error with which the server ended the stream.
func (c *client) ended() error {
	c.t.Helper()
	synctest.Wait()
	select {
	case err := <-c.end:
		return err
	default:
		c.t.Fatal("stream has not ended")
		return nil
	}
}

// connect brings a client to rest with everything that is there.
func (m *mesh) connect(id string, eds, rds []string) *client {
	m.t.Helper()
	c := m.delta(id)
	c.subscribe(resource.Cluster)
	c.ack(c.next())
	if len(eds) > 0 {
		c.subscribe(resource.Endpoint, eds...)
		c.ack(c.next())
	}
	c.subscribe(resource.Listener)
	c.ack(c.next())
	if len(rds) > 0 {
		c.subscribe(resource.Route, rds...)
		c.ack(c.next())
	}
	c.quiet()
	return c
}

func pass(d time.Duration) {
	time.Sleep(d) // In a bubble: time passes when everything is idle.
	synctest.Wait()
}

// soon is the next response, or nil when the server has nothing more to do.
func (c *client) soon() *got {
	synctest.Wait()
	select {
	case g := <-c.in:
		return g
	default:
		return nil
	}
}

// have is the first request of a client that comes back with one resource.
func have(t resource.Type, name, version string) *discovery.DeltaDiscoveryRequest {
	return &discovery.DeltaDiscoveryRequest{TypeUrl: t.URL(), InitialResourceVersions: map[string]string{name: version}}
}
