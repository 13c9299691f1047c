// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	istioca "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ca"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/xds"
	"github.com/isthmus-mesh/isthmus/internal/pki"
)

// port is the secure port as isthmusd serves it: ADS and the CA on one server.
type port struct {
	t     *testing.T
	addr  string
	roots *x509.CertPool
	key   *ecdsa.PrivateKey // of tokens
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func securePort(t *testing.T, src *source) *port {
	t.Helper()
	root, err := pki.NewRoot(pki.RootOptions{Organization: "cluster.local", Validity: pki.Validity{Now: time.Now()}})
	if err != nil {
		t.Fatal(err)
	}
	p := &port{t: t, roots: root.Pool(), key: newKey(t)}
	der, err := x509.MarshalPKIXPublicKey(p.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := authn.NewStaticKey(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil)
	if err != nil {
		t.Fatal(err)
	}
	who := authn.New(authn.Options{TrustDomain: "cluster.local", Roots: root.Pool, Tokens: tokens})
	authority := ca.New(ca.Options{Bundle: root, Identities: who})
	creds := authn.NewCredentials(authority.Serving([]string{"isthmusd"}, nil).GRPC(), nil)
	g := grpc.NewServer(append(xds.ServerOptions(), grpc.Creds(creds))...)
	authority.Register(g)
	xds.New(xds.Options{Source: src, Identities: who}).Register(g)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = lis.Addr().String()
	go func() { _ = g.Serve(lis) }()
	t.Cleanup(g.Stop)
	return p
}

func (p *port) dial(certs ...tls.Certificate) *grpc.ClientConn {
	p.t.Helper()
	conn, err := grpc.NewClient(p.addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		RootCAs: p.roots, ServerName: "isthmusd", Certificates: certs, MinVersion: tls.VersionTLS12,
	})))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// certificate is obtained as an agent does: by a token, from the same port.
func (p *port) certificate(account string) tls.Certificate {
	p.t.Helper()
	token, err := authn.SignStatic(p.key, authn.Subject{Name: "system:serviceaccount:shop:" + account, NotAfter: time.Now().Add(time.Hour)})
	if err != nil {
		p.t.Fatal(err)
	}
	key := newKey(p.t)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		p.t.Fatal(err)
	}
	ctx := metadata.AppendToOutgoingContext(p.t.Context(), "authorization", "Bearer "+token)
	r, err := istioca.NewIstioCertificateServiceClient(p.dial()).CreateCertificate(ctx, &istioca.IstioCertificateRequest{
		Csr: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})),
	})
	if err != nil {
		p.t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(r.GetCertChain()[0]))
	return tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}
}

func TestSecurePort(t *testing.T) {
	t.Parallel()
	src := &source{}
	src.set(cluster("a", "1", ""))
	p := securePort(t, src)
	tests := map[string]struct {
		certs []tls.Certificate
		id    string
		want  codes.Code
	}{
		"a proxy with its certificate":    {certs: []tls.Certificate{p.certificate("cart")}, id: cartNode},
		"a proxy of another namespace":    {certs: []tls.Certificate{p.certificate("cart")}, id: "sidecar~10.0.0.7~till-1.bank~bank.svc.cluster.local", want: codes.PermissionDenied},
		"a proxy without any certificate": {id: cartNode, want: codes.Unauthenticated},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := discovery.NewAggregatedDiscoveryServiceClient(p.dial(tc.certs...)).DeltaAggregatedResources(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			err = s.Send(&discovery.DeltaDiscoveryRequest{Node: node(tc.id), TypeUrl: resource.Cluster.URL()})
			if err != nil && !errors.Is(err, io.EOF) { // The stream may have ended by now; Recv tells why.
				t.Fatal(err)
			}
			r, err := s.Recv()
			if status.Code(err) != tc.want {
				t.Fatalf("error = %v, want %v", err, tc.want)
			}
			if err == nil && (len(r.GetResources()) != 1 || r.GetResources()[0].GetName() != "a") {
				t.Errorf("response = %v", r)
			}
		})
	}
}
