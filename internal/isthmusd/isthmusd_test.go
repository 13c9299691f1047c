// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package isthmusd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	istioca "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

const world = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {serviceAccountName: web, containers: [{name: istio-proxy}]}
status: {podIP: 10.0.0.1}
`

// start runs a daemon of a directory on free ports of loopback.
func start(t *testing.T, change func(*Config)) (*Daemon, string) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "world.yaml", world)
	cfg := Config{
		ConfigDir: dir, Log: slog.New(slog.DiscardHandler),
		Addresses: Addresses{GRPC: "127.0.0.1:0", HTTP: "127.0.0.1:0"},
	}
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(t.Context())
	d, err := New(ctx, cfg)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return d, dir
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	tmp := filepath.Join(dir, "."+name)
	if err := os.WriteFile(tmp, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// subscribe opens a delta stream for clusters, as soon as the daemon is ready.
func subscribe(t *testing.T, d *Daemon) discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient {
	t.Helper()
	waitReady(t, d)
	conn, err := grpc.NewClient(d.Addr("grpc").String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	send(t, stream, &discovery.DeltaDiscoveryRequest{
		Node:    &core.Node{Id: "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local"},
		TypeUrl: resource.Cluster.URL(),
	})
	return stream
}

func send(t *testing.T, s discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient, r *discovery.DeltaDiscoveryRequest) {
	t.Helper()
	if err := s.Send(r); err != nil {
		t.Fatal(err)
	}
}

// receive returns the names of the next clusters, and acknowledges all on the way.
func receive(t *testing.T, s discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient) []string {
	t.Helper()
	for {
		r, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		send(t, s, &discovery.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()})
		if r.GetTypeUrl() != resource.Cluster.URL() {
			continue
		}
		var names []string
		for _, res := range r.GetResources() {
			names = append(names, res.GetName())
		}
		return names
	}
}

func waitReady(t *testing.T, d *Daemon) {
	t.Helper()
	notify := make(chan struct{}, 1)
	defer d.catalog.Watch(notify)()
	for !d.catalog.Ready() {
		<-notify
	}
}

func get(t *testing.T, d *Daemon, path string) (int, string) {
	t.Helper()
	res, err := http.Get("http://" + d.Addr("http").String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestADirectoryIsServed(t *testing.T) {
	t.Parallel()
	d, dir := start(t, nil)
	stream := subscribe(t, d)
	if names := receive(t, stream); !slices.Contains(names, "outbound|80||web.shop.svc.cluster.local") {
		t.Fatalf("clusters: %v", names)
	}
	write(t, dir, "more.yaml", strings.ReplaceAll(world, "web", "api"))
	if names := receive(t, stream); !slices.Equal(names, []string{"outbound|80||api.shop.svc.cluster.local"}) {
		t.Errorf("the change sends %v", names)
	}
	for path, want := range map[string]string{
		"/ready":                             "ready",
		"/metrics":                           "isthmusd_commits_total",
		"/debug/syncz":                       `"name": "web-1"`,
		"/debug/snapshotz":                   `"services": 2`,
		"/debug/configz?proxy=web-1.shop":    "outbound|80||api.shop.svc.cluster.local",
		"/debug/pprof/goroutine?debug=1":     "goroutine profile",
		"/debug/distribution?epoch=whatever": `"state": "Behind"`,
	} {
		if code, body := get(t, d, path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d, want %q in %.300s", path, code, want, body)
		}
	}
}

func TestBadDocumentsAreShown(t *testing.T) {
	t.Parallel()
	d, _ := start(t, func(c *Config) { write(t, c.ConfigDir, "bad.yaml", "kind: [") })
	waitReady(t, d)
	_, body := get(t, d, "/debug/snapshotz")
	var got struct{ Problems map[string]string }
	if err := json.Unmarshal([]byte(body), &got); err != nil || len(got.Problems) != 1 {
		t.Errorf("%v, %s", err, body)
	}
}

func TestConfigsThatAreRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"plaintext to the network":               {func(c *Config) { c.Addresses.GRPC = ":15010" }, "only loopback"},
		"plaintext to an interface":              {func(c *Config) { c.Addresses.GRPC = "10.0.0.1:15010" }, "only loopback"},
		"nothing to serve from":                  {func(c *Config) { c.ConfigDir = "" }, "either"},
		"a directory that is none":               {func(c *Config) { c.ConfigDir += "/none" }, "not a directory"},
		"no key for tokens":                      {func(c *Config) { c.TokenKey = c.ConfigDir + "/none" }, "read token key"},
		"the distribution without an API server": {func(c *Config) { c.Addresses.Distribution = "127.0.0.1:0" }, "in Kubernetes only"},
		"an address of another":                  {func(c *Config) { c.Addresses.HTTP = "192.0.2.1:80" }, "serve http"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := Config{ConfigDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
			tc.change(&c)
			if _, err := New(t.Context(), c); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestTheCAIsMadeOnceAndIssues(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	caDir, keyFile := t.TempDir(), filepath.Join(t.TempDir(), "key.pem")
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	secure := func(c *Config) {
		c.CADir, c.TokenKey, c.Addresses.SecureGRPC = caDir, keyFile, "127.0.0.1:0"
		c.Topology = topology.Config{TrustDomain: "example.org"}
	}
	first, _ := start(t, secure)
	second, _ := start(t, secure)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(first.security.authority.Bundle().RootPEM())
	token, err := authn.SignStatic(key, authn.Subject{Name: "system:serviceaccount:shop:web", NotAfter: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	// The second daemon found the first's CA.
	conn, err := grpc.NewClient(second.Addr("secure-grpc").String(), grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(roots, "localhost")))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	res, err := istioca.NewIstioCertificateServiceClient(conn).CreateCertificate(ctx, &istioca.IstioCertificateRequest{
		Csr: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
	})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(res.GetCertChain()[0]))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if got := cert.URIs[0].String(); got != "spiffe://example.org/ns/shop/sa/web" {
		t.Errorf("issued for %s", got)
	}
}
