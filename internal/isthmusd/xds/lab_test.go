// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/xds"
	"github.com/isthmus-mesh/isthmus/test/binaries"
)

const bootstrap = `
node: {id: "sidecar~127.0.0.1~cart-1.shop~shop.svc.cluster.local", cluster: cart.shop, metadata: {ISTHMUS_DISCOVERY: %[4]q}}
admin: {address: {pipe: {path: %[1]q}}}
dynamic_resources:
  ads_config: {api_type: %[2]s, transport_api_version: V3, set_node_on_first_message_only: true, grpc_services: [{envoy_grpc: {cluster_name: xds-grpc}}]}
  cds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}
  lds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}
static_resources:
  clusters:
  - name: xds-grpc
    connect_timeout: 1s
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: xds-grpc
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %[3]d}}}}]}]
`

func marshalled(t *testing.T, typ resource.Type, name string, m proto.Message) *resource.Resource {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	h := fnv.New64a()
	_, _ = h.Write(b)
	return &resource.Resource{Type: typ, Name: name, Version: h.Sum64(), Body: b}
}

func packed(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var overADS = &core.ConfigSource{
	ResourceApiVersion:    core.ApiVersion_V3,
	ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}},
	// So long that a test would notice if Envoy waited for it.
	InitialFetchTimeout: durationpb.New(time.Hour),
}

func edsCluster(t *testing.T, name, service string, timeout time.Duration) *resource.Resource {
	t.Helper()
	r := marshalled(t, resource.Cluster, name, &clusterv3.Cluster{
		Name:                 name,
		ConnectTimeout:       durationpb.New(timeout),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: overADS, ServiceName: service},
	})
	r.ServiceName = service
	return r
}

func socket(addr string) *core.Address {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		panic(err)
	}
	return &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
		Address:       tcp.IP.String(),
		PortSpecifier: &core.SocketAddress_PortValue{PortValue: uint32(tcp.Port)},
	}}}
}

func assignment(t *testing.T, service, addr string) *resource.Resource {
	t.Helper()
	return marshalled(t, resource.Endpoint, service, &endpointv3.ClusterLoadAssignment{
		ClusterName: service,
		Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: socket(addr)}},
		}}}},
	})
}

func httpListener(t *testing.T, addr, routeName, prefix string) *resource.Resource {
	t.Helper()
	manager := &hcm.HttpConnectionManager{
		StatPrefix:     prefix,
		RouteSpecifier: &hcm.HttpConnectionManager_Rds{Rds: &hcm.Rds{ConfigSource: overADS, RouteConfigName: routeName}},
		HttpFilters: []*hcm.HttpFilter{{
			Name:       "envoy.filters.http.router",
			ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: packed(t, &routerv3.Router{})},
		}},
	}
	return marshalled(t, resource.Listener, "in", &listenerv3.Listener{
		Name:    "in",
		Address: socket(addr),
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name:       "envoy.filters.network.http_connection_manager",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(t, manager)},
		}}}},
	})
}

func routeTo(t *testing.T, name, cluster string) *resource.Resource {
	t.Helper()
	return marshalled(t, resource.Route, name, &routev3.RouteConfiguration{
		Name: name,
		VirtualHosts: []*routev3.VirtualHost{{
			Name: "all", Domains: []string{"*"},
			Routes: []*routev3.Route{{
				Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster}}},
			}},
		}},
	})
}

func backend(t *testing.T, name string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) }))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// podVariable names the variable by which the Envoys of a test differ.
const podVariable = "ISTHMUS_TEST_POD"

// lab is a real Envoy fed by a real server over plaintext on loopback.
type lab struct {
	t      *testing.T
	source *source
	server *xds.Server
	addr   string // of the ADS server
	entry  string // of Envoy's listener
	admin  *http.Client
	grpc   *grpc.Server
	// discovery is what Envoy's node says that it expects.
	discovery string
	// more services of the server.
	more []func(*grpc.Server)
	// linger of the server, and for how many seconds Envoy drains.
	linger time.Duration
	drain  int
}

// protocols are the ways in which Envoy may ask.
var protocols = map[string]string{"delta": "DELTA_GRPC", "state of the world": "GRPC"}

func newLab(t *testing.T, api string, more ...func(*grpc.Server)) *lab {
	t.Helper()
	l := &lab{t: t, entry: freeAddr(t), more: more, linger: 2 * time.Second, drain: 1}
	l.start(api)
	return l
}

func (l *lab) start(api string) {
	l.t.Helper()
	l.source = &source{}
	l.source.set()
	l.serve("127.0.0.1:0")
	l.startEnvoy(binaries.Path(l.t, "envoy"), api)
}

// serve starts a new server, as a replica that knows nothing would.
func (l *lab) serve(addr string) {
	l.t.Helper()
	lis, err := net.Listen("tcp", addr)
	if err != nil {
		l.t.Fatal(err)
	}
	l.addr = lis.Addr().String()
	who := authn.New(authn.Options{TrustDomain: "cluster.local", Roots: x509.NewCertPool})
	l.server = xds.New(xds.Options{Source: l.source, Identities: who, Linger: l.linger})
	l.grpc = grpc.NewServer(xds.ServerOptions()...)
	l.server.Register(l.grpc)
	for _, register := range l.more {
		register(l.grpc)
	}
	g := l.grpc
	go func() { _ = g.Serve(lis) }()
	l.t.Cleanup(g.Stop)
}

func (l *lab) startEnvoy(binary, api string) {
	l.t.Helper()
	dir, err := os.MkdirTemp("", "xds")
	if err != nil {
		l.t.Fatal(err)
	}
	admin := filepath.Join(dir, "admin")
	_, port, err := net.SplitHostPort(l.addr)
	if err != nil {
		l.t.Fatal(err)
	}
	var number int
	if _, err := fmt.Sscan(port, &number); err != nil {
		l.t.Fatal(err)
	}
	config := fmt.Sprintf(bootstrap, admin, api, number, l.discovery)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.Command(binary, "--config-yaml", config, "--concurrency", "1", "--use-dynamic-base-id",
		"--drain-time-s", strconv.Itoa(l.drain), "--log-level", "warning")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), podVariable+"="+l.entry)
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if l.t.Failed() {
			b, _ := os.ReadFile(log.Name())
			l.t.Logf("Envoy: %s", b)
		}
		_ = os.RemoveAll(dir)
	})
	l.admin = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", admin)
	}}}
}

// eventually polls another process; there is nothing to wait on.
func (l *lab) eventually(what string, ok func() bool) {
	l.t.Helper()
	for range 6000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.t.Fatalf("never: %s; status %+v", what, l.server.Status())
}

// settled waits until Envoy has acknowledged the newest revision.
func (l *lab) settled(what string) {
	l.t.Helper()
	l.eventually(what+" acknowledged", func() bool {
		st := l.server.Status()
		return len(st) == 1 && !st[0].Behind && st[0].Newest.Revision == l.source.revision()
	})
}

// stream waits until Envoy has one, and returns what is known of it: Envoy may just
// be opening another.
func (l *lab) stream() *xds.ProxyStatus {
	l.t.Helper()
	var st []*xds.ProxyStatus
	l.eventually("a stream", func() bool {
		st = l.server.Status()
		return len(st) == 1
	})
	return st[0]
}

func (s *source) revision() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Revision
}

func (l *lab) get() (string, error) {
	r, err := http.Get("http://" + l.entry + "/")
	if err != nil {
		return "", err
	}
	defer func() { _ = r.Body.Close() }()
	b, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", r.StatusCode, b)
	}
	return string(b), err
}

func (l *lab) answers(want string) {
	l.t.Helper()
	l.eventually("answer from "+want, func() bool {
		got, err := l.get()
		return err == nil && got == want
	})
}

// hammer sends requests until stopped and tells the failures.
func (l *lab) hammer() (stop func()) {
	var failed, sent atomic.Int32
	var last atomic.Value
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		for ctx.Err() == nil {
			sent.Add(1)
			if _, err := l.get(); err != nil {
				failed.Add(1)
				last.Store(err)
			}
		}
	})
	return func() {
		l.t.Helper()
		cancel()
		done.Wait()
		if failed.Load() != 0 {
			l.t.Errorf("%d of %d requests failed, the last with: %v", failed.Load(), sent.Load(), last.Load())
		}
		l.t.Logf("%d requests", sent.Load())
	}
}

// clusters are those with which Envoy works; dump is all that it was told, which it
// may be bringing up.
func (l *lab) clusters() string { return "\n" + l.ask("clusters") }
func (l *lab) dump() string     { return l.ask("config_dump") }

func (l *lab) ask(path string) string {
	r, err := l.admin.Get("http://admin/" + path)
	if err != nil {
		return ""
	}
	defer func() { _ = r.Body.Close() }()
	b, _ := io.ReadAll(r.Body)
	return string(b)
}
