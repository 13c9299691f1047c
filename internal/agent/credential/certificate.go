// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package credential gets and keeps the workload's certificate: a key that never
// leaves the pod, signed by the mesh's CA. The first one is asked for with the
// pod's service account token; later ones with the certificate before, at half
// of its life; when that has run out, or is refused, with the token again.
//
//	token or certificate ─► Authority.Issue ─► Certificate ─┐
//	root-cert.pem ──────────────────────────────────────────┴► Keeper ─► State to SDS
package credential

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Certificate is a key and what the CA made of it.
type Certificate struct {
	// Key and Chain (leaf first, without roots) in PEM.
	Key, Chain []byte
	// Roots that came with it, in PEM.
	Roots []byte
	// Pair is the same for use by TLS clients.
	Pair tls.Certificate
}

// NotAfter is the end of its life.
func (c *Certificate) NotAfter() time.Time { return c.Pair.Leaf.NotAfter }

// NotBefore is the beginning of its life.
func (c *Certificate) NotBefore() time.Time { return c.Pair.Leaf.NotBefore }

// Valid tells whether peers accept it at that time.
func (c *Certificate) Valid(now time.Time) bool {
	return now.After(c.NotBefore()) && now.Before(c.NotAfter())
}

// newRequest makes a P-256 key and a request for the identity. The CA takes the
// name from whom it authenticated, so the one in the request informs only.
func newRequest(spiffe string) (keyPEM, csrPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("marshal key: %w", err)
	}
	template := &x509.CertificateRequest{}
	if spiffe != "" {
		u, err := url.Parse(spiffe)
		if err != nil {
			return nil, nil, fmt.Errorf("parse identity: %w", err)
		}
		template.URIs = []*url.URL{u}
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, nil, fmt.Errorf("create certificate request: %w", err)
	}
	keyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	csrPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})
	return keyPEM, csrPEM, nil
}

// newCertificate reads the CA's answer: leaf first, one intermediate an entry,
// every root in the last entry (wire contract, 1.5).
func newCertificate(keyPEM []byte, chain []string) (*Certificate, error) {
	if len(chain) < 2 {
		return nil, fmt.Errorf("the CA sent %d certificates, want leaf and root at least", len(chain))
	}
	for i, c := range chain {
		chain[i] = strings.TrimRight(c, "\n") + "\n"
	}
	c := &Certificate{
		Key:   keyPEM,
		Chain: []byte(strings.Join(chain[:len(chain)-1], "")),
		Roots: []byte(chain[len(chain)-1]),
	}
	var err error
	if c.Pair, err = tls.X509KeyPair(c.Chain, c.Key); err != nil {
		return nil, fmt.Errorf("the CA's certificate: %w", err)
	}
	roots, err := parse(c.Roots)
	if err != nil {
		return nil, fmt.Errorf("the CA's roots: %w", err)
	}
	if len(roots) == 0 {
		return nil, errors.New("the CA sent no root")
	}
	return c, nil
}

func parse(data []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse certificate: %w", err)
		}
		out = append(out, c)
	}
	return out, nil
}

// merge is every certificate of these PEM texts once, in order.
func merge(texts ...[]byte) []byte {
	var out bytes.Buffer
	seen := map[string]bool{}
	for _, t := range texts {
		for block, rest := pem.Decode(t); block != nil; block, rest = pem.Decode(rest) {
			if block.Type == "CERTIFICATE" && !seen[string(block.Bytes)] {
				seen[string(block.Bytes)] = true
				out.Write(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))
			}
		}
	}
	return out.Bytes()
}

// within tells whether every certificate of the one text is in the other.
func within(some, all []byte) bool {
	return len(merge(all, some)) == len(merge(all))
}
