// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package pki_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/identity"
	"github.com/isthmus-mesh/isthmus/internal/pki"
)

var (
	now  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	cart = identity.SPIFFE{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "cart"}
)

func root(t testing.TB) *pki.Bundle {
	t.Helper()
	b, err := pki.NewRoot(pki.RootOptions{Organization: "cluster.local", Validity: pki.Validity{Now: now}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func request(t testing.TB, key crypto.Signer, template x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func ecKey(t testing.TB, c elliptic.Curve) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func rsaKey(t testing.TB, bits int) crypto.Signer {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSign(t *testing.T) {
	t.Parallel()
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	valid := request(t, ecKey(t, elliptic.P256()), x509.CertificateRequest{})
	tests := map[string]struct {
		csr     []byte
		ttl     time.Duration
		wantErr bool
		wantEnd time.Time
	}{
		"ECDSA P-256":    {csr: valid, ttl: time.Hour, wantEnd: now.Add(time.Hour)},
		"ECDSA P-384":    {csr: request(t, ecKey(t, elliptic.P384()), x509.CertificateRequest{}), ttl: time.Hour, wantEnd: now.Add(time.Hour)},
		"Ed25519":        {csr: request(t, edKey, x509.CertificateRequest{}), ttl: time.Hour, wantEnd: now.Add(time.Hour)},
		"RSA 2048":       {csr: request(t, rsaKey(t, 2048), x509.CertificateRequest{}), ttl: time.Hour, wantEnd: now.Add(time.Hour)},
		"longer than CA": {csr: valid, ttl: 20 * 365 * 24 * time.Hour, wantEnd: now.Add(pki.RootLifetime)},
		"P-224 is weak":  {csr: request(t, ecKey(t, elliptic.P224()), x509.CertificateRequest{}), wantErr: true},
		"RSA 1024 is weak": {
			csr: request(t, rsaKey(t, 1024), x509.CertificateRequest{}), wantErr: true,
		},
		"not PEM":         {csr: []byte("hello"), wantErr: true},
		"broken PEM body": {csr: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte{1}}), wantErr: true},
		"tampered signature": {
			csr: tamper(valid), wantErr: true,
		},
		"names in the request are ignored": {
			csr: request(t, ecKey(t, elliptic.P256()), x509.CertificateRequest{
				Subject:  pkix.Name{CommonName: "root"},
				DNSNames: []string{"kubernetes.default.svc"},
				URIs:     []*url.URL{{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/kube-system/sa/admin"}},
			}),
			ttl: time.Hour, wantEnd: now.Add(time.Hour),
		},
	}
	ca := root(t)
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			chain, err := ca.Sign(tc.csr, cart, pki.Validity{Now: now, TTL: tc.ttl})
			if (err != nil) != tc.wantErr {
				t.Fatalf("Sign error = %v, want error %v", err, tc.wantErr)
			}
			if err != nil {
				return
			}
			checkChain(t, chain, tc.wantEnd)
		})
	}
}

func tamper(csr []byte) []byte {
	block, _ := pem.Decode(csr)
	b := bytes.Clone(block.Bytes)
	b[len(b)-1] ^= 1
	return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: b})
}

func checkChain(t *testing.T, chain []string, wantEnd time.Time) {
	t.Helper()
	if len(chain) < 2 {
		t.Fatalf("chain has %d entries, want at least leaf and root", len(chain))
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(chain[len(chain)-1])) {
		t.Fatal("last entry is not a root")
	}
	for _, c := range chain[1 : len(chain)-1] {
		between.AppendCertsFromPEM([]byte(c))
	}
	certs, err := pki.ParseCertificates([]byte(chain[0]))
	if err != nil || len(certs) != 1 {
		t.Fatalf("first entry: %d certificates, %v", len(certs), err)
	}
	leaf := certs[0]
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		t.Errorf("verify leaf: %v", err)
	}
	if id, err := identity.FromCertificate(leaf); err != nil || id != cart {
		t.Errorf("identity = %v, %v, want %v", id, err, cart)
	}
	if len(leaf.DNSNames) != 0 || leaf.Subject.String() != "" || leaf.IsCA {
		t.Errorf("leaf took names or powers: %v %q CA=%v", leaf.DNSNames, leaf.Subject, leaf.IsCA)
	}
	if !leaf.NotAfter.Equal(wantEnd) {
		t.Errorf("NotAfter = %v, want %v", leaf.NotAfter, wantEnd)
	}
}

// intermediate makes Secret data in which an intermediate signs.
func intermediate(t *testing.T) (map[string][]byte, *x509.Certificate) {
	t.Helper()
	rootKey, interKey := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())
	template := func(n int64, name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: name},
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
			KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
		}
	}
	sign := func(tmpl, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	rootCert := sign(template(1, "root"), template(1, "root"), rootKey.Public(), rootKey)
	interCert := sign(template(2, "inter"), rootCert, interKey.Public(), rootKey)
	enc := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	der, err := x509.MarshalECPrivateKey(interKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		pki.KeyPrivate: enc("EC PRIVATE KEY", der),
		pki.KeyCert:    enc("CERTIFICATE", interCert.Raw),
		pki.KeyRoot:    enc("CERTIFICATE", rootCert.Raw),
		pki.KeyChain:   enc("CERTIFICATE", interCert.Raw),
	}, rootCert
}

func TestLoadIntermediate(t *testing.T) {
	t.Parallel()
	data, _ := intermediate(t)
	b, err := pki.Load(data, now)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := b.Sign(request(t, ecKey(t, elliptic.P256()), x509.CertificateRequest{}), cart, pki.Validity{Now: now, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if len(chain) != 3 {
		t.Fatalf("chain has %d entries, want leaf, intermediate, root", len(chain))
	}
	checkChain(t, chain, now.Add(time.Hour))
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	good, err := root(t).Data()
	if err != nil {
		t.Fatal(err)
	}
	other, err := root(t).Data()
	if err != nil {
		t.Fatal(err)
	}
	with := func(key string, value []byte) map[string][]byte {
		out := map[string][]byte{}
		for k, v := range good {
			out[k] = v
		}
		out[key] = value
		return out
	}
	tests := map[string]struct {
		data map[string][]byte
		at   time.Time
		ok   bool
	}{
		"a good bundle":           {data: good, at: now, ok: true},
		"only key and root":       {data: with(pki.KeyCert, nil), at: now, ok: true},
		"no data":                 {at: now},
		"no key":                  {data: with(pki.KeyPrivate, nil), at: now},
		"another key":             {data: with(pki.KeyPrivate, other[pki.KeyPrivate]), at: now},
		"another root":            {data: with(pki.KeyRoot, other[pki.KeyRoot]), at: now},
		"garbage in the chain":    {data: with(pki.KeyChain, []byte("x")), at: now},
		"after its end":           {data: good, at: now.Add(pki.RootLifetime + time.Hour)},
		"key in the place of crt": {data: with(pki.KeyCert, good[pki.KeyPrivate]), at: now},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := pki.Load(tc.data, tc.at); (err == nil) != tc.ok {
				t.Errorf("Load error = %v, want ok %v", err, tc.ok)
			}
		})
	}
}

func TestRotationReachesTheChain(t *testing.T) {
	t.Parallel()
	old, next := root(t), root(t)
	both := old.WithRoots(next.Roots()...).WithRoots(next.Roots()...)
	if n := len(both.Roots()); n != 2 {
		t.Fatalf("roots = %d, want 2", n)
	}
	data, err := both.Data()
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := pki.Load(data, now)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := loaded.Sign(request(t, ecKey(t, elliptic.P256()), x509.CertificateRequest{}), cart, pki.Validity{Now: now, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if roots, err := pki.ParseCertificates([]byte(chain[len(chain)-1])); err != nil || len(roots) != 2 {
		t.Errorf("last entry holds %d roots, %v, want both", len(roots), err)
	}
}

func TestIssueServing(t *testing.T) {
	t.Parallel()
	data, rootCert := intermediate(t)
	b, err := pki.Load(data, now)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := b.IssueServing(pki.ServingOptions{
		DNSNames: []string{"isthmusd-default.isthmus-system.svc"},
		IPs:      []net.IP{net.IPv4(127, 0, 0, 1)},
		Validity: pki.Validity{Now: now, TTL: time.Hour},
	})
	if err != nil {
		t.Fatal(err)
	}
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	pool.AddCert(rootCert)
	for _, der := range cert.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		between.AddCert(c)
	}
	for _, name := range []string{"isthmusd-default.isthmus-system.svc", "127.0.0.1"} {
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: pool, Intermediates: between, CurrentTime: now}); err != nil {
			t.Errorf("verify for %s: %v", name, err)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add(request(f, ecKey(f, elliptic.P256()), x509.CertificateRequest{DNSNames: []string{"a"}}))
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nAA==\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		csr, err := pki.ParseRequest(b)
		if (csr == nil) == (err == nil) {
			t.Errorf("request %v with error %v", csr, err)
		}
	})
}

func FuzzLoad(f *testing.F) {
	data, err := root(f).Data()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[pki.KeyPrivate], data[pki.KeyCert], data[pki.KeyRoot])
	f.Fuzz(func(t *testing.T, key, cert, root []byte) {
		b, err := pki.Load(map[string][]byte{pki.KeyPrivate: key, pki.KeyCert: cert, pki.KeyRoot: root}, now)
		if (b == nil) == (err == nil) {
			t.Errorf("bundle %v with error %v", b, err)
		}
	})
}

// BenchmarkSign answers a workload's request, its signature checked: all that a CA
// computes, without the call that brings it.
func BenchmarkSign(b *testing.B) {
	ca := root(b)
	csr := request(b, ecKey(b, elliptic.P256()), x509.CertificateRequest{})
	for b.Loop() {
		if _, err := ca.Sign(csr, cart, pki.Validity{Now: now, TTL: time.Hour}); err != nil {
			b.Fatal(err)
		}
	}
}
