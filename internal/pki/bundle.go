// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package pki makes keys and certificates: the mesh's root, workload
// certificates and serving certificates. It holds no clock, no client and no
// state: times and randomness are passed in, so every caller is testable.
//
//	NewRoot / Load ─► Bundle ─► Sign(CSR, identity) ─► chain: leaf, intermediates, roots
//	                        └─► IssueServing(names)  ─► tls.Certificate
package pki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Keys of the CA Secret, named as in Istio's cacerts Secret so that a
// plugged-in one can be used as it is (wire contract, 1.5).
const (
	// KeyPrivate holds the signing key.
	KeyPrivate = "ca-key.pem"
	// KeyCert holds the signing certificate.
	KeyCert = "ca-cert.pem"
	// KeyRoot holds every root to trust; several while a root is being rotated.
	KeyRoot = "root-cert.pem"
	// KeyChain holds the certificates from the signing certificate up to, and
	// not including, its root. Absent or empty when the root itself signs.
	KeyChain = "cert-chain.pem"
)

// Bundle is a signing key with its certificates. Immutable; Load and NewRoot
// return only bundles whose chain verifies.
type Bundle struct {
	key   crypto.Signer
	cert  *x509.Certificate
	chain []*x509.Certificate // from cert up to its root, without the root; empty when the root signs
	roots []*x509.Certificate
}

// Cert is the signing certificate.
func (b *Bundle) Cert() *x509.Certificate { return b.cert }

// Roots are the certificates to trust; not to be modified.
func (b *Bundle) Roots() []*x509.Certificate { return b.roots }

// Pool is a new pool of the roots.
func (b *Bundle) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range b.roots {
		pool.AddCert(c)
	}
	return pool
}

// RootPEM is every root, as written to root-cert.pem.
func (b *Bundle) RootPEM() []byte { return encodeCerts(b.roots) }

// NotAfter is when the first certificate of the signing chain ends; what is
// signed never outlives it.
func (b *Bundle) NotAfter() time.Time {
	end := b.cert.NotAfter
	for _, c := range b.chain {
		if c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	return end
}

// Equal tells whether the bundles sign with the same certificate, through the
// same chain, under the same roots.
func (b *Bundle) Equal(o *Bundle) bool {
	same := func(x, y *x509.Certificate) bool { return x.Equal(y) }
	return b.cert.Equal(o.cert) && slices.EqualFunc(b.chain, o.chain, same) && slices.EqualFunc(b.roots, o.roots, same)
}

// Data renders the bundle as Secret data; Load reads it back.
func (b *Bundle) Data() (map[string][]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(b.key)
	if err != nil {
		return nil, fmt.Errorf("marshal CA key: %w", err)
	}
	return map[string][]byte{
		KeyPrivate: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		KeyCert:    encodeCerts([]*x509.Certificate{b.cert}),
		KeyRoot:    b.RootPEM(),
		KeyChain:   encodeCerts(b.chain),
	}, nil
}

// Load reads a bundle from Secret data and refuses one that could not serve a
// mesh at this time: key and certificate must match, the certificate must be
// allowed to sign, and it must lead to one of the roots. An absent ca-cert.pem
// means that the (only) root signs.
func Load(data map[string][]byte, now time.Time) (*Bundle, error) {
	key, err := parseKey(data[KeyPrivate])
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", KeyPrivate, err)
	}
	roots, err := ParseCertificates(data[KeyRoot])
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", KeyRoot, err)
	}
	signing := data[KeyCert]
	if len(signing) == 0 {
		signing = data[KeyRoot]
	}
	certs, err := ParseCertificates(signing)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", KeyCert, err)
	}
	var chain []*x509.Certificate
	if len(bytes.TrimSpace(data[KeyChain])) > 0 {
		if chain, err = ParseCertificates(data[KeyChain]); err != nil {
			return nil, fmt.Errorf("read %s: %w", KeyChain, err)
		}
	}
	b := &Bundle{key: key, cert: certs[0], roots: roots, chain: signingChain(certs, chain, roots)}
	if err := b.validate(now); err != nil {
		return nil, err
	}
	return b, nil
}

// ParseCertificates reads one or more PEM certificates; none is an error.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for len(bytes.TrimSpace(data)) > 0 {
		block, rest := pem.Decode(data)
		if block == nil {
			return nil, errors.New("not PEM")
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("unexpected PEM block %q", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse certificate: %w", err)
		}
		out, data = append(out, cert), rest
	}
	if len(out) == 0 {
		return nil, errors.New("no certificate")
	}
	return out, nil
}

// signingChain is what a peer needs between leaf and root: the signing
// certificate and those above it, in whatever of the two entries they came,
// without duplicates and without roots.
func signingChain(certs, chain, roots []*x509.Certificate) []*x509.Certificate {
	seen := map[string]bool{}
	for _, r := range roots {
		seen[string(r.Raw)] = true
	}
	var out []*x509.Certificate
	for _, c := range append(append([]*x509.Certificate(nil), certs...), chain...) {
		if !seen[string(c.Raw)] {
			seen[string(c.Raw)] = true
			out = append(out, c)
		}
	}
	return out
}

func (b *Bundle) validate(now time.Time) error {
	public, ok := b.cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(b.key.Public()) {
		return fmt.Errorf("%s is not the key of %s", KeyPrivate, KeyCert)
	}
	if err := checkStrength(b.key.Public()); err != nil {
		return fmt.Errorf("%s: %w", KeyPrivate, err)
	}
	if !b.cert.IsCA || b.cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return fmt.Errorf("%s is not allowed to sign certificates", KeyCert)
	}
	between := x509.NewCertPool()
	for _, c := range b.chain {
		between.AddCert(c)
	}
	_, err := b.cert.Verify(x509.VerifyOptions{
		Roots:         b.Pool(),
		Intermediates: between,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return fmt.Errorf("%s does not lead to %s: %w", KeyCert, KeyRoot, err)
	}
	return nil
}

func encodeCerts(certs []*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range certs {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return out.Bytes()
}

func parseKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("not PEM")
	}
	var key any
	var err error
	switch block.Type {
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		// The parser's message could quote the key; say only what failed.
		return nil, fmt.Errorf("block %q does not hold a private key", block.Type)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("key of type %T cannot sign", key)
	}
	return signer, nil
}
