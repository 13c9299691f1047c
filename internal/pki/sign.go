// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/identity"
)

const (
	// RootLifetime is how long a root made by NewRoot is valid unless told otherwise.
	RootLifetime = 10 * 365 * 24 * time.Hour
	// skew is how far clocks of the mesh may differ: certificates are valid from
	// so long before they were asked for.
	skew = 2 * time.Minute
	// minRSABits is the least strength that is signed or loaded.
	minRSABits = 2048
	// maxRSABits bounds what a stranger can make the verifier compute.
	maxRSABits = 8192
)

// Validity is when a certificate holds.
type Validity struct {
	// Now is the caller's time; the certificate starts slightly before it.
	Now time.Time
	// TTL from Now.
	TTL time.Duration
}

// RootOptions say what NewRoot makes.
type RootOptions struct {
	// Organization in the subject; the trust domain, by convention.
	Organization string
	// Validity of the root; a TTL of 0 means RootLifetime.
	Validity Validity
}

// NewRoot makes an ECDSA P-256 key and a self-signed CA certificate. The
// operator stores its Data in the CA Secret; isthmusd does so in --ca-dir.
func NewRoot(o RootOptions) (*Bundle, error) {
	if o.Validity.TTL == 0 {
		o.Validity.TTL = RootLifetime
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate root key: %w", err)
	}
	template := rootTemplate(o)
	cert, err := create(template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign root: %w", err)
	}
	return &Bundle{key: key, cert: cert, roots: []*x509.Certificate{cert}}, nil
}

// WithRoots is the same signer trusting these roots as well; for a rotation.
func (b *Bundle) WithRoots(more ...*x509.Certificate) *Bundle {
	out := *b
	out.roots = append([]*x509.Certificate(nil), b.roots...)
	seen := map[string]bool{}
	for _, r := range b.roots {
		seen[string(r.Raw)] = true
	}
	for _, r := range more {
		if !seen[string(r.Raw)] {
			seen[string(r.Raw)] = true
			out.roots = append(out.roots, r)
		}
	}
	return &out
}

// Sign answers a PEM certificate request with a workload certificate. The
// identity comes from the authenticated caller; of the request only the public
// key is used, after its signature proved possession and its strength was
// checked. The chain is PEM: leaf first, one intermediate per entry, all roots
// in the last entry (so that a rotation reaches agents with their next
// certificate).
func (b *Bundle) Sign(csrPEM []byte, id identity.SPIFFE, v Validity) ([]string, error) {
	csr, err := ParseRequest(csrPEM)
	if err != nil {
		return nil, err
	}
	leaf, err := create(b.bound(workloadTemplate(id, v)), b.cert, csr.PublicKey, b.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %s: %w", id, err)
	}
	out := []string{string(encodeCerts([]*x509.Certificate{leaf}))}
	for _, c := range b.chain {
		out = append(out, string(encodeCerts([]*x509.Certificate{c})))
	}
	return append(out, string(b.RootPEM())), nil
}

// ParseRequest reads a PEM certificate request and checks its signature and the
// strength of its key.
func ParseRequest(csrPEM []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(csrPEM)
	if block == nil {
		return nil, errors.New("certificate request is not PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse certificate request: %w", err)
	}
	// Strength first: it bounds what checking the signature costs.
	if err := checkStrength(csr.PublicKey); err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request: signature does not match its key: %w", err)
	}
	return csr, nil
}

// ServingOptions say for which names a serving certificate is.
type ServingOptions struct {
	DNSNames []string
	IPs      []net.IP
	Validity Validity
}

// IssueServing makes a new key and a serving certificate for these names, with
// the chain that a client needs which trusts only the roots. Leaf is set.
func (b *Bundle) IssueServing(o ServingOptions) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate serving key: %w", err)
	}
	leaf, err := create(b.bound(servingTemplate(o)), b.cert, key.Public(), b.key)
	if err != nil {
		return nil, fmt.Errorf("sign serving certificate for %v: %w", o.DNSNames, err)
	}
	out := &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	for _, c := range b.chain {
		out.Certificate = append(out.Certificate, c.Raw)
	}
	return out, nil
}

func rootTemplate(o RootOptions) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{o.Organization}, CommonName: "Isthmus root"},
		NotBefore:             o.Validity.Now.Add(-skew),
		NotAfter:              o.Validity.Now.Add(o.Validity.TTL),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
}

// workloadTemplate is an X.509-SVID: the identity as the only name, marked
// critical by crypto/x509 because the subject is empty.
func workloadTemplate(id identity.SPIFFE, v Validity) *x509.Certificate {
	return &x509.Certificate{
		NotBefore:             v.Now.Add(-skew),
		NotAfter:              v.Now.Add(v.TTL),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{id.URL()},
	}
}

func servingTemplate(o ServingOptions) *x509.Certificate {
	return &x509.Certificate{
		NotBefore:             o.Validity.Now.Add(-skew),
		NotAfter:              o.Validity.Now.Add(o.Validity.TTL),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              o.DNSNames,
		IPAddresses:           o.IPs,
	}
}

// bound keeps the template inside the life of the chain that signs it.
func (b *Bundle) bound(t *x509.Certificate) *x509.Certificate {
	if end := b.NotAfter(); t.NotAfter.After(end) {
		t.NotAfter = end
	}
	return t
}

func create(t, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("draw serial number: %w", err)
	}
	t.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func checkStrength(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSABits || n > maxRSABits {
			return fmt.Errorf("RSA key of %d bits, want %d to %d", n, minRSABits, maxRSABits)
		}
		return nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P224() {
			return errors.New("ECDSA key on P-224, want P-256 or stronger")
		}
		return nil
	case ed25519.PublicKey:
		return nil
	default:
		return fmt.Errorf("key type %T is not supported", pub)
	}
}
