// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/pki"
)

// servingTTL of isthmusd's own certificates.
const servingTTL = 24 * time.Hour

// Serving is the source of a serving certificate: issued by the authority when
// first asked, and again after half of its life or when the bundle was swapped.
// It needs no goroutine, because handshakes are what ask.
type Serving struct {
	authority *Authority
	dns       []string
	ips       []net.IP
	slots     chan struct{}

	mu     sync.Mutex
	cert   *tls.Certificate
	signer *pki.Bundle
	renew  time.Time
}

// Serving returns a source of certificates for these names.
func (a *Authority) Serving(dns []string, ips []net.IP) *Serving {
	return &Serving{authority: a, dns: dns, ips: ips, slots: make(chan struct{}, runtime.GOMAXPROCS(0))}
}

// paced is a key that signs for as many handshakes at once as there are CPUs, in
// the order in which they came. Of a thousand proxies that connect at once some
// are then served at once, where otherwise all would wait until the last one's
// time is over and begin again. No place is held while a client is waited for.
type paced struct {
	crypto.Signer
	slots chan struct{}
}

// Sign implements crypto.Signer.
func (p paced) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	p.slots <- struct{}{}
	defer func() { <-p.slots }()
	return p.Signer.Sign(rand, digest, opts)
}

// GetCertificate fits tls.Config.
func (s *Serving) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, signer := s.authority.o.Clock.Now(), s.authority.Bundle()
	if s.cert != nil && s.signer == signer && now.Before(s.renew) {
		return s.cert, nil
	}
	cert, err := signer.IssueServing(pki.ServingOptions{
		DNSNames: s.dns,
		IPs:      s.ips,
		Validity: pki.Validity{Now: now, TTL: servingTTL},
	})
	if err != nil {
		return nil, fmt.Errorf("renew serving certificate: %w", err)
	}
	if key, ok := cert.PrivateKey.(crypto.Signer); ok {
		cert.PrivateKey = paced{key, s.slots}
	}
	s.cert, s.signer = cert, signer
	s.renew = now.Add(cert.Leaf.NotAfter.Sub(now) / 2)
	return cert, nil
}

// GRPC is the TLS configuration of the secure gRPC port. Client certificates
// are asked for and not judged in the handshake: authn judges them for every
// stream against the roots of the moment, and a proxy whose certificate has
// expired can still present a token.
func (s *Serving) GRPC() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: s.GetCertificate,
		ClientAuth:     tls.RequestClientCert,
		NextProtos:     []string{"h2"},
		// A resumed session would carry the certificate of long ago.
		SessionTicketsDisabled: true,
	}
}

// HTTPS is the TLS configuration of webhooks and other HTTPS ports.
func (s *Serving) HTTPS() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: s.GetCertificate,
		NextProtos:     []string{"h2", "http/1.1"},
	}
}
