// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ca_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	istioca "istio.io/api/security/v1alpha1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/isthmus-mesh/isthmus/internal/identity"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ca"
	"github.com/isthmus-mesh/isthmus/internal/pki"
)

const serverName = "isthmusd-default.isthmus-system.svc"

func newRoot(t testing.TB) *pki.Bundle {
	t.Helper()
	b, err := pki.NewRoot(pki.RootOptions{Organization: "cluster.local", Validity: pki.Validity{Now: time.Now()}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func request(t testing.TB) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// mesh is an authority behind TLS on loopback, with a key for tokens.
type mesh struct {
	authority *ca.Authority
	tokenKey  *ecdsa.PrivateKey
	addr      string
}

func start(t *testing.T) *mesh {
	t.Helper()
	tokenKey, _ := request(t)
	der, err := x509.MarshalPKIXPublicKey(tokenKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := authn.NewStaticKey(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil)
	if err != nil {
		t.Fatal(err)
	}
	var authority *ca.Authority
	who := authn.New(authn.Options{
		TrustDomain: "cluster.local",
		Roots:       func() *x509.CertPool { return authority.Roots() },
		Tokens:      tokens,
	})
	authority = ca.New(ca.Options{Bundle: newRoot(t), Identities: who, MaxTTL: 2 * time.Hour})
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serving := authority.Serving([]string{serverName}, []net.IP{net.IPv4(127, 0, 0, 1)})
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(serving.GRPC())))
	authority.Register(s)
	go func() { _ = s.Serve(lis) }()
	t.Cleanup(s.Stop)
	return &mesh{authority: authority, tokenKey: tokenKey, addr: lis.Addr().String()}
}

func (m *mesh) dial(t *testing.T, certs ...tls.Certificate) istioca.IstioCertificateServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(m.addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		RootCAs: m.authority.Bundle().Pool(), ServerName: serverName, Certificates: certs, MinVersion: tls.VersionTLS12,
	})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return istioca.NewIstioCertificateServiceClient(conn)
}

func (m *mesh) withToken(t *testing.T) context.Context {
	t.Helper()
	token, err := authn.SignStatic(m.tokenKey, authn.Subject{
		Name: "system:serviceaccount:shop:cart", Pod: "cart-1", NotAfter: time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
}

func TestTokenThenCertificate(t *testing.T) {
	t.Parallel()
	m := start(t)
	key, csr := request(t)
	first, err := m.dial(t).CreateCertificate(m.withToken(t), &istioca.IstioCertificateRequest{Csr: csr, ValidityDuration: 3600})
	if err != nil {
		t.Fatal(err)
	}
	chain := first.GetCertChain()
	if len(chain) != 2 {
		t.Fatalf("chain has %d entries, want leaf and root", len(chain))
	}
	leaf, err := pki.ParseCertificates([]byte(chain[0]))
	if err != nil {
		t.Fatal(err)
	}
	if id, err := identity.FromCertificate(leaf[0]); err != nil || id.String() != "spiffe://cluster.local/ns/shop/sa/cart" {
		t.Fatalf("identity = %v, %v", id, err)
	}
	mine := tls.Certificate{Certificate: [][]byte{leaf[0].Raw}, PrivateKey: key}
	_, again := request(t)
	renewed, err := m.dial(t, mine).CreateCertificate(t.Context(), &istioca.IstioCertificateRequest{Csr: again})
	if err != nil {
		t.Fatalf("renew with the certificate alone: %v", err)
	}
	if len(renewed.GetCertChain()) != 2 {
		t.Errorf("renewed chain = %d entries", len(renewed.GetCertChain()))
	}
}

func TestCreateCertificateRefuses(t *testing.T) {
	t.Parallel()
	m := start(t)
	_, csr := request(t)
	impersonation, err := structpb.NewStruct(map[string]any{"ImpersonatedIdentity": "spiffe://cluster.local/ns/a/sa/b"})
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		ctx  context.Context
		in   *istioca.IstioCertificateRequest
		want codes.Code
	}{
		"nobody":            {ctx: t.Context(), in: &istioca.IstioCertificateRequest{Csr: csr}, want: codes.Unauthenticated},
		"no request":        {ctx: m.withToken(t), in: &istioca.IstioCertificateRequest{}, want: codes.InvalidArgument},
		"in another's name": {ctx: m.withToken(t), in: &istioca.IstioCertificateRequest{Csr: csr, Metadata: impersonation}, want: codes.PermissionDenied},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := m.dial(t).CreateCertificate(tc.ctx, tc.in); status.Code(err) != tc.want {
				t.Errorf("error = %v, want %v", err, tc.want)
			}
		})
	}
}

type always struct{ caller authn.Caller }

func (a always) Authenticate(context.Context) (authn.Caller, error) { return a.caller, nil }

func TestValidityAndSwap(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Second)
	c := clocktesting.NewFakePassiveClock(now)
	who := always{authn.Caller{Identity: identity.SPIFFE{TrustDomain: "td", Namespace: "a", ServiceAccount: "b"}}}
	a := ca.New(ca.Options{Bundle: newRoot(t), Identities: who, MaxTTL: 2 * time.Hour, DefaultTTL: time.Hour, Clock: c})
	_, csr := request(t)
	tests := map[string]struct {
		ask  int64
		want time.Duration
	}{
		"as asked":       {ask: 60, want: time.Minute},
		"nothing asked":  {want: time.Hour},
		"too long":       {ask: 1 << 40, want: 2 * time.Hour},
		"less than zero": {ask: -5, want: time.Hour},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			out, err := a.CreateCertificate(t.Context(), &istioca.IstioCertificateRequest{Csr: csr, ValidityDuration: tc.ask})
			if err != nil {
				t.Fatal(err)
			}
			leaf, err := pki.ParseCertificates([]byte(out.GetCertChain()[0]))
			if err != nil {
				t.Fatal(err)
			}
			if got := leaf[0].NotAfter.Sub(now); got != tc.want {
				t.Errorf("life = %v, want %v", got, tc.want)
			}
		})
	}
	serving := a.Serving([]string{serverName}, nil)
	get := func() *tls.Certificate {
		cert, err := serving.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	first := get()
	if get() != first {
		t.Error("a fresh serving certificate was not kept")
	}
	c.SetTime(now.Add(13 * time.Hour))
	second := get()
	if second == first {
		t.Error("serving certificate was not renewed after half its life")
	}
	next := newRoot(t)
	a.Swap(next)
	third := get()
	if third == second {
		t.Error("serving certificate survived the swap of its signer")
	}
	if _, err := third.Leaf.Verify(x509.VerifyOptions{DNSName: serverName, Roots: next.Pool(), CurrentTime: c.Now()}); err != nil {
		t.Errorf("serving certificate after the swap: %v", err)
	}
}

func FuzzCreateCertificate(f *testing.F) {
	who := always{authn.Caller{Identity: identity.SPIFFE{TrustDomain: "td", Namespace: "a", ServiceAccount: "b"}}}
	a := ca.New(ca.Options{Bundle: newRoot(f), Identities: who})
	_, csr := request(f)
	f.Add(csr, int64(60))
	f.Add("", int64(-1))
	f.Fuzz(func(t *testing.T, csr string, ttl int64) {
		out, err := a.CreateCertificate(t.Context(), &istioca.IstioCertificateRequest{Csr: csr, ValidityDuration: ttl})
		if err == nil && len(out.GetCertChain()) != 2 {
			t.Errorf("chain of %d entries", len(out.GetCertChain()))
		}
	})
}
