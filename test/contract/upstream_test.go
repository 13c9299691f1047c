// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package contract

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpc "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	istioca "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
)

// mesh is what the upstream agent finds: its pod, and a service.
const mesh = `
{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: shop, labels: {app: web}}, spec: {serviceAccountName: web, containers: [{name: app}]}, status: {podIP: 10.0.0.1, phase: Running}}
---
{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop}, spec: {clusterIP: 10.96.0.9, ports: [{name: http, port: 80}]}}
`

// upstream plays Istio's agent: it trusts a root file, has a token of the pod's
// account, and forwards what its Envoy asks.
type upstream struct {
	t     *testing.T
	conn  *grpc.ClientConn
	token string
}

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	dir, caDir, keyFile := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "key.pem")
	for path, b := range map[string][]byte{
		keyFile:                         pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
		filepath.Join(dir, "mesh.yaml"): []byte(mesh),
	} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	d, err := isthmusd.New(ctx, isthmusd.Config{
		ConfigDir: dir, CADir: caDir, TokenKey: keyFile, Log: slog.New(slog.DiscardHandler),
		Addresses: isthmusd.Addresses{SecureGRPC: "127.0.0.1:0", HTTP: "127.0.0.1:0"},
	})
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
	waitReady(t, d)
	roots, err := os.ReadFile(filepath.Join(caDir, "root-cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	conn, err := grpc.NewClient(d.Addr("secure-grpc").String(), grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(pool, "localhost")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	token, err := authn.SignStatic(key, authn.Subject{Name: "system:serviceaccount:shop:web", Pod: "web-1", NotAfter: time.Now().Add(12 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return &upstream{t: t, conn: conn, token: token}
}

// waitReady asks as the kubelet does.
func waitReady(t *testing.T, d *isthmusd.Daemon) {
	t.Helper()
	deadline := time.After(time.Minute)
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		res, err := http.Get("http://" + d.Addr("http").String() + "/ready")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				tick.Stop()
				return
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("not ready within a minute")
		}
	}
}

// context is bounded and carries the headers of the upstream agent.
func (u *upstream) context() context.Context {
	ctx, cancel := context.WithTimeout(u.t.Context(), time.Minute)
	u.t.Cleanup(cancel)
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+u.token, "ClusterID", "Kubernetes")
}

// node is what the upstream agent's bootstrap says of a sidecar: booleans are
// strings, and lists and configuration are JSON inside.
func (u *upstream) node() *core.Node {
	u.t.Helper()
	md, err := structpb.NewStruct(map[string]any{
		"ANNOTATIONS": map[string]any{"sidecar.istio.io/status": "{}"}, "APP_CONTAINERS": "app", "CLUSTER_ID": "Kubernetes",
		"ENVOY_PROMETHEUS_PORT": 15090, "ENVOY_STATUS_PORT": 15021, "INSTANCE_IPS": "10.0.0.1,fd00::1", "INTERCEPTION_MODE": "REDIRECT",
		"ISTIO_PROXY_SHA": "abc", "ISTIO_VERSION": "1.31.0", "LABELS": map[string]any{"app": "web"}, "MESH_ID": "cluster.local",
		"NAME": "web-1", "NAMESPACE": "shop", "NODE_NAME": "n1", "OWNER": "kubernetes://apis/apps/v1/namespaces/shop/deployments/web",
		"PILOT_SAN": []any{"istiod.istio-system.svc"}, "POD_PORTS": `[{"containerPort":8080}]`, "SERVICE_ACCOUNT": "web", "WORKLOAD_NAME": "web",
		"PROXY_CONFIG":       map[string]any{"binaryPath": "/usr/local/bin/envoy", "concurrency": 2, "statusPort": 15020, "drainDuration": "45s"},
		"METADATA_DISCOVERY": "true", "UNPRIVILEGED_POD": "true",
	})
	if err != nil {
		u.t.Fatal(err)
	}
	return &core.Node{
		Id: "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local", Cluster: "web.shop", Metadata: md,
		Locality: &core.Locality{Region: "r", Zone: "z"}, UserAgentName: "envoy",
	}
}

func TestUpstreamAgentGetsItsCertificate(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"forged.example.com"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	md, err := structpb.NewStruct(map[string]any{"CertSigner": ""})
	if err != nil {
		t.Fatal(err)
	}
	res, err := istioca.NewIstioCertificateServiceClient(u.conn).CreateCertificate(u.context(), &istioca.IstioCertificateRequest{
		Csr:              string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})),
		ValidityDuration: int64((24 * time.Hour).Seconds()), Metadata: md,
	})
	if err != nil {
		t.Fatal(err)
	}
	chain := res.GetCertChain()
	if len(chain) < 2 {
		t.Fatalf("a chain of %d, which the agent refuses", len(chain))
	}
	block, _ := pem.Decode([]byte(chain[0]))
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(chain[len(chain)-1]))
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Errorf("the last of the chain is not its root: %v", err)
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://cluster.local/ns/shop/sa/web" || len(leaf.DNSNames) != 0 {
		t.Errorf("issued for %v %v", leaf.URIs, leaf.DNSNames)
	}
}

// Types that are not Envoy's: the agent asks for them on its own behalf, on the
// stream that it forwards.
const (
	health     = "type.googleapis.com/istio.v1.HealthInformation"
	nameTable  = "type.googleapis.com/istio.networking.nds.v1.NameTable"
	proxyTable = "type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig"
	debugType  = "istio.io/debug"
	extension  = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
	clusters   = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	endpoints  = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	listeners  = "type.googleapis.com/envoy.config.listener.v3.Listener"
)

const cart = "outbound|80||cart.shop.svc.cluster.local"

// TestUpstreamProxyIsServed asks, in both protocols, in the order of the upstream
// agent: what it adds of its own before and between Envoy's requests is answered
// harmlessly or, but for the table of names, not at all, and disturbs nothing of
// what Envoy waits for.
func TestUpstreamProxyIsServed(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	t.Run("delta", func(t *testing.T) {
		t.Parallel()
		s, err := discovery.NewAggregatedDiscoveryServiceClient(u.conn).DeltaAggregatedResources(u.context())
		if err != nil {
			t.Fatal(err)
		}
		send := func(r *discovery.DeltaDiscoveryRequest) {
			if err := s.Send(r); err != nil {
				t.Fatal(err)
			}
		}
		send(&discovery.DeltaDiscoveryRequest{Node: u.node(), TypeUrl: health})
		send(&discovery.DeltaDiscoveryRequest{TypeUrl: clusters})
		send(&discovery.DeltaDiscoveryRequest{TypeUrl: health, ErrorDetail: &rpc.Status{Code: 500, Message: "unhealthy"}})
		send(&discovery.DeltaDiscoveryRequest{TypeUrl: nameTable})
		send(&discovery.DeltaDiscoveryRequest{TypeUrl: proxyTable})
		send(&discovery.DeltaDiscoveryRequest{TypeUrl: debugType + "/syncz"})
		send(&discovery.DeltaDiscoveryRequest{TypeUrl: extension, ResourceNamesSubscribe: []string{"wasm"}})
		send(&discovery.DeltaDiscoveryRequest{TypeUrl: endpoints, ResourceNamesSubscribe: []string{cart}})
		send(&discovery.DeltaDiscoveryRequest{TypeUrl: listeners})
		want := map[string]string{clusters: cart, endpoints: cart, listeners: "virtualInbound", extension: "-wasm", nameTable: ""}
		for len(want) > 0 {
			r, err := s.Recv()
			if err != nil {
				t.Fatalf("still waiting for %v: %v", want, err)
			}
			for _, x := range r.GetResources() {
				wantTable(t, r.GetTypeUrl(), x.GetResource())
				if x.GetName() == want[r.GetTypeUrl()] {
					delete(want, r.GetTypeUrl())
				}
			}
			if len(r.GetRemovedResources()) == 1 && "-"+r.GetRemovedResources()[0] == want[r.GetTypeUrl()] {
				delete(want, r.GetTypeUrl())
			}
			send(&discovery.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()})
		}
	})
	t.Run("state of the world", func(t *testing.T) {
		t.Parallel()
		s, err := discovery.NewAggregatedDiscoveryServiceClient(u.conn).StreamAggregatedResources(u.context())
		if err != nil {
			t.Fatal(err)
		}
		send := func(r *discovery.DiscoveryRequest) {
			if err := s.Send(r); err != nil {
				t.Fatal(err)
			}
		}
		send(&discovery.DiscoveryRequest{Node: u.node(), TypeUrl: health})
		for _, url := range []string{clusters, nameTable, proxyTable, debugType + "/syncz", listeners} {
			send(&discovery.DiscoveryRequest{TypeUrl: url})
		}
		send(&discovery.DiscoveryRequest{TypeUrl: extension, ResourceNames: []string{"wasm"}})
		send(&discovery.DiscoveryRequest{TypeUrl: endpoints, ResourceNames: []string{cart}})
		want := map[string]string{clusters: cart, endpoints: cart, listeners: "virtualInbound", nameTable: ""}
		for len(want) > 0 {
			r, err := s.Recv()
			if err != nil {
				t.Fatalf("still waiting for %v: %v", want, err)
			}
			for _, x := range r.GetResources() {
				wantTable(t, r.GetTypeUrl(), x)
				if strings.Contains(string(x.GetValue()), want[r.GetTypeUrl()]) {
					delete(want, r.GetTypeUrl())
				}
			}
			ack := &discovery.DiscoveryRequest{TypeUrl: r.GetTypeUrl(), VersionInfo: r.GetVersionInfo(), ResponseNonce: r.GetNonce()}
			if r.GetTypeUrl() == endpoints {
				ack.ResourceNames = []string{cart}
			}
			send(ack)
		}
	})
}

// wantTable wants a table of names that the upstream agent can read: without it,
// an agent that captures DNS is never ready.
func wantTable(t *testing.T, url string, x *anypb.Any) {
	t.Helper()
	if url == nameTable && (x.GetTypeUrl() != nameTable || len(x.GetValue()) != 0) {
		t.Errorf("the table of names is %v", x)
	}
}

func TestUpstreamProxyMayNotBeAnother(t *testing.T) {
	t.Parallel()
	u := newUpstream(t)
	for name, tc := range map[string]struct {
		token  string
		change func(*core.Node)
		want   codes.Code
	}{
		"without a token": {token: "none", want: codes.Unauthenticated},
		"in another namespace": {token: u.token, change: func(n *core.Node) {
			n.Id = "sidecar~10.0.0.1~web-1.bank~bank.svc.cluster.local"
			delete(n.Metadata.Fields, "NAMESPACE")
		}, want: codes.PermissionDenied},
		"as another account": {token: u.token, change: func(n *core.Node) { n.Metadata.Fields["SERVICE_ACCOUNT"] = structpb.NewStringValue("admin") }, want: codes.PermissionDenied},
		"as another pod":     {token: u.token, change: func(n *core.Node) { n.Id = "sidecar~10.0.0.1~web-2.shop~shop.svc.cluster.local" }, want: codes.PermissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := &upstream{t: t, conn: u.conn, token: tc.token}
			s, err := discovery.NewAggregatedDiscoveryServiceClient(u.conn).StreamAggregatedResources(v.context())
			if err != nil {
				t.Fatal(err)
			}
			n := v.node()
			if tc.change != nil {
				tc.change(n)
			}
			if err := s.Send(&discovery.DiscoveryRequest{Node: n, TypeUrl: clusters}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Recv(); status.Code(err) != tc.want {
				t.Errorf("error = %v, want %v", err, tc.want)
			}
		})
	}
}
