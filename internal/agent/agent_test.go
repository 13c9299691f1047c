// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/go-logr/logr/testr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	istioca "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/internal/agent/bootstrap"
	"github.com/isthmus-mesh/isthmus/internal/agent/proxy"
	"github.com/isthmus-mesh/isthmus/internal/identity"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
	"github.com/isthmus-mesh/isthmus/internal/pki"
	"github.com/isthmus-mesh/isthmus/test/binaries"
)

const serverName = "isthmusd-default.isthmus-system.svc"

// plane is a control plane that knows one pod: its token, and no configuration.
type plane struct {
	istioca.UnimplementedIstioCertificateServiceServer
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	bundle  *pki.Bundle
	ttl     time.Duration
	address string
	// refuseCertificates makes it forget who it signed for.
	refuseCertificates atomic.Bool
	// byToken and byCertificate count certificates by how they were asked for.
	byToken, byCertificate atomic.Int32
	// streams receives who opens a discovery stream.
	streams chan string
}

func newPlane(t *testing.T, ttl time.Duration) *plane {
	t.Helper()
	b, err := pki.NewRoot(pki.RootOptions{Organization: "test", Validity: pki.Validity{Now: time.Now()}})
	must(t, err)
	serving, err := b.IssueServing(pki.ServingOptions{DNSNames: []string{serverName}, Validity: pki.Validity{Now: time.Now(), TTL: time.Hour}})
	must(t, err)
	p := &plane{bundle: b, ttl: ttl, streams: make(chan string, 100)}
	s := grpc.NewServer(grpc.Creds(authn.NewCredentials(&tls.Config{
		Certificates: []tls.Certificate{*serving}, ClientCAs: b.Pool(), ClientAuth: tls.VerifyClientCertIfGiven, MinVersion: tls.VersionTLS12,
	}, nil)))
	istioca.RegisterIstioCertificateServiceServer(s, p)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(s, p)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p.address = l.Addr().String()
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return p
}

func caller(ctx context.Context) string {
	p, _ := peer.FromContext(ctx)
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return ""
	}
	id, err := identity.FromCertificate(info.State.PeerCertificates[0])
	if err != nil {
		return ""
	}
	return id.String()
}

// CreateCertificate implements the CA.
func (p *plane) CreateCertificate(ctx context.Context, r *istioca.IstioCertificateRequest) (*istioca.IstioCertificateResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	switch {
	case caller(ctx) != "" && !p.refuseCertificates.Load():
		p.byCertificate.Add(1)
	case strings.Join(md.Get("authorization"), "") == "Bearer good":
		p.byToken.Add(1)
	default:
		return nil, status.Error(codes.Unauthenticated, "who are you")
	}
	id := identity.SPIFFE{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "cart"}
	chain, err := p.bundle.Sign([]byte(r.GetCsr()), id, pki.Validity{Now: time.Now(), TTL: p.ttl})
	if err != nil {
		return nil, err
	}
	return &istioca.IstioCertificateResponse{CertChain: chain}, nil
}

// DeltaAggregatedResources answers every first request with nothing.
func (p *plane) DeltaAggregatedResources(s discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	p.streams <- caller(s.Context())
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if r.GetResponseNonce() != "" {
			continue
		}
		if err := s.Send(&discoveryv3.DeltaDiscoveryResponse{TypeUrl: r.GetTypeUrl(), Nonce: "1", SystemVersionInfo: "1"}); err != nil {
			return err
		}
	}
}

// pod is the world of one agent.
type pod struct {
	config Config
	status string
	ended  chan error
	stop   func()
}

func startPod(t *testing.T, p *plane) *pod {
	t.Helper()
	envoy := binaries.Path(t, "envoy")
	root, err := os.MkdirTemp("", "pod") // short: sockets lie in it
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	write := func(file, content string) {
		must(t, os.MkdirAll(filepath.Join(root, filepath.Dir(file)), 0o755))
		must(t, os.WriteFile(filepath.Join(root, file), []byte(content), 0o600))
	}
	write(rootFile, string(p.bundle.RootPEM()))
	write(tokenFile, "good")
	write(labelsFile, "app=\"cart\"\n")
	ports := freePorts(t, 3)
	c, err := Configure(Environment{
		"POD_NAME": "cart-1", "POD_NAMESPACE": "shop", "INSTANCE_IP": "127.0.0.1", "SERVICE_ACCOUNT": "cart",
		"ISTIOD_SAN": serverName, "CA_ADDR": p.address, "ISTIO_META_CLUSTER_ID": "Kubernetes",
		"PROXY_CONFIG": fmt.Sprintf(`{"discoveryAddress":%q,"concurrency":1,"terminationDrainDuration":"1s"}`, p.address),
	}, Settings{
		Role: bootstrap.Sidecar, Root: root, EnvoyPath: envoy, ClusterDomain: "cluster.local",
		Admin: adminSocket, StatusPort: ports[0], HealthPort: ports[1], MetricsPort: ports[2],
	})
	must(t, err)
	c.StatusListen = "127.0.0.1" + c.StatusListen
	return run(t, c)
}

// run starts the agent; again, as the kubelet does with a container that ended.
func run(t *testing.T, c Config) *pod {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	pd := &pod{config: c, status: "http://" + c.StatusListen, ended: make(chan error, 1), stop: cancel}
	done := make(chan struct{})
	go func() {
		defer close(done)
		pd.ended <- Run(ctx, c, testr.New(t))
	}()
	t.Cleanup(func() { cancel(); <-done })
	return pd
}

func freePorts(t *testing.T, n int) []uint16 {
	t.Helper()
	var out []uint16
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		defer func() { must(t, l.Close()) }()
		out = append(out, uint16(l.Addr().(*net.TCPAddr).Port))
	}
	return out
}

// get asks until the status is as wanted.
func (p *pod) get(t *testing.T, method, path string, want int) string {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last string
	for range tick.C {
		req, err := http.NewRequestWithContext(t.Context(), method, p.status+path, nil)
		must(t, err)
		if res, err := http.DefaultClient.Do(req); err == nil {
			b, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if last = fmt.Sprint(res.Status, " ", string(b)); res.StatusCode == want {
				return string(b)
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s %s: %s, want %d", method, path, last, want)
		}
	}
	return ""
}

func TestProxyStartsServesAndDrains(t *testing.T) {
	t.Parallel()
	plane := newPlane(t, time.Hour)
	p := startPod(t, plane)
	p.get(t, http.MethodGet, "/healthz/ready", http.StatusOK)
	if who := <-plane.streams; who != "spiffe://cluster.local/ns/shop/sa/cart" {
		t.Errorf("Envoy's discovery stream came from %q", who)
	}
	if n := plane.byToken.Load(); n != 1 {
		t.Errorf("%d certificates by token, want 1", n)
	}
	// Had the socket come after Envoy, each secret would have waited for longer and
	// longer before it was asked for again.
	if failed := p.secretsRefused(t); failed != "0" {
		t.Errorf("Envoy found nobody at the socket of the secrets: %q times", failed)
	}
	m := p.get(t, http.MethodGet, "/stats/prometheus", http.StatusOK)
	for _, want := range []string{"isthmus_agent_certificate_expiry_timestamp_seconds", "envoy_server_state"} {
		if !strings.Contains(m, want) {
			t.Errorf("metrics have no %s", want)
		}
	}
	p.stop()
	if err := <-p.ended; err != nil {
		t.Errorf("end: %v", err)
	}
}

func TestQuitOnRequest(t *testing.T) {
	t.Parallel()
	p := startPod(t, newPlane(t, time.Hour))
	p.get(t, http.MethodGet, "/healthz/ready", http.StatusOK)
	p.get(t, http.MethodPost, "/quitquitquit", http.StatusOK)
	if err := <-p.ended; err != nil {
		t.Errorf("end: %v", err)
	}
}

func TestEnvoysEndIsOurs(t *testing.T) {
	t.Parallel()
	p := startPod(t, newPlane(t, time.Hour))
	p.get(t, http.MethodGet, "/healthz/ready", http.StatusOK)
	res, err := p.admin().Post("http://admin/quitquitquit", "", nil)
	must(t, err)
	_ = res.Body.Close()
	var exit *proxy.ExitError
	if err := <-p.ended; !errors.As(err, &exit) || exit.Code != 0 {
		t.Errorf("end: %v, want an exit with code 0", err)
	}
}

func TestCertificateIsRenewedByItself(t *testing.T) {
	t.Parallel()
	plane := newPlane(t, 3*time.Second)
	p := startPod(t, plane)
	p.get(t, http.MethodGet, "/healthz/ready", http.StatusOK)
	eventually(t, func() bool { return plane.byCertificate.Load() > 1 })
	if n := plane.byToken.Load(); n != 1 {
		t.Errorf("%d certificates by token, want 1", n)
	}
	// The control plane ends connections with the certificate that opened them.
	for n := range 3 {
		if who := plane.stream(t); who != "spiffe://cluster.local/ns/shop/sa/cart" {
			t.Errorf("stream %d came from %q", n, who)
		}
	}
	p.get(t, http.MethodGet, "/healthz/ready", http.StatusOK)
}

// stream is who opens the next discovery stream.
func (p *plane) stream(t *testing.T) string {
	t.Helper()
	select {
	case who := <-p.streams:
		return who
	case <-time.After(time.Minute):
		t.Fatal("no discovery stream within a minute")
		return ""
	}
}

// TestAPodStartsAnewAfterACrash kills Envoy, and leaves behind what a killed agent
// would: the container that the kubelet starts next has the same volumes.
func TestAPodStartsAnewAfterACrash(t *testing.T) {
	t.Parallel()
	plane := newPlane(t, time.Hour)
	p := startPod(t, plane)
	p.get(t, http.MethodGet, "/healthz/ready", http.StatusOK)
	plane.stream(t)
	must(t, syscall.Kill(envoyOf(t, p.config.Root), syscall.SIGKILL))
	var exit *proxy.ExitError
	if err := <-p.ended; !errors.As(err, &exit) || exit.Code == 0 {
		t.Errorf("end: %v, want one that makes the kubelet start the container anew", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(p.config.Root, bootstrap.SDSSocket), Net: "unix"})
	must(t, err)
	l.SetUnlinkOnClose(false)
	must(t, l.Close())

	p = run(t, p.config)
	p.get(t, http.MethodGet, "/healthz/ready", http.StatusOK)
	if who := plane.stream(t); who != "spiffe://cluster.local/ns/shop/sa/cart" {
		t.Errorf("the stream after the crash came from %q", who)
	}
}

// envoyOf finds the Envoy that works in the directory root.
func envoyOf(t *testing.T, root string) int {
	t.Helper()
	root, err := filepath.EvalSymlinks(root)
	must(t, err)
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	must(t, err)
	for _, l := range links {
		if dir, _ := os.Readlink(l); dir == root { // it may have ended
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(l)))
			must(t, err)
			return pid
		}
	}
	t.Fatal("no Envoy")
	return 0
}

func TestTokenHelpsWhenTheCertificateIsRefused(t *testing.T) {
	t.Parallel()
	plane := newPlane(t, 3*time.Second)
	plane.refuseCertificates.Store(true)
	p := startPod(t, plane)
	p.get(t, http.MethodGet, "/healthz/ready", http.StatusOK)
	eventually(t, func() bool { return plane.byToken.Load() > 1 })
}

func TestEnvoyTrustsANewRootAtOnce(t *testing.T) {
	t.Parallel()
	plane := newPlane(t, time.Hour)
	p := startPod(t, plane)
	p.get(t, http.MethodGet, "/healthz/ready", http.StatusOK)
	next, err := pki.NewRoot(pki.RootOptions{Organization: "next", Validity: pki.Validity{Now: time.Now()}})
	must(t, err)
	serial := fmt.Sprintf("%x", next.Cert().SerialNumber)
	must(t, os.WriteFile(filepath.Join(p.config.Root, rootFile), plane.bundle.WithRoots(next.Roots()...).RootPEM(), 0o600))
	eventually(t, func() bool {
		res, err := p.admin().Get("http://admin/certs")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return strings.Contains(string(b), serial)
	})
	if n := plane.byToken.Load() + plane.byCertificate.Load(); n != 1 {
		t.Errorf("%d certificates, want 1: a root that is added needs no new one", n)
	}
}

// admin is a client of Envoy's admin interface.
func (p *pod) admin() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(p.config.Root, adminSocket))
	}}}
}

// secretsRefused is how often Envoy could not connect to where secrets are served.
func (p *pod) secretsRefused(t *testing.T) string {
	t.Helper()
	res, err := p.admin().Get("http://admin/clusters")
	must(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if _, n, ok := strings.Cut(line, "::cx_connect_fail::"); ok && strings.HasPrefix(line, "sds-grpc::") {
			return strings.TrimSpace(n)
		}
	}
	return "unknown"
}

func eventually(t *testing.T, f func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("not within 20 s")
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
