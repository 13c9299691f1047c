// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	istioca "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/internal/identity"
	"github.com/isthmus-mesh/isthmus/internal/pki"
)

// Proof is how whoever asks for a certificate says who it is.
type Proof string

// The proofs.
const (
	// ByToken is what a new pod does.
	ByToken Proof = "token"
	// ByCertificate is what it does later.
	ByCertificate Proof = "certificate"
)

// Certificates asks for certificates, as the agents of pods do.
type Certificates struct {
	client istioca.IstioCertificateServiceClient
	conn   *grpc.ClientConn
	csr    string
	token  string
}

// NewCertificates makes a client of a CA, whose bundle signs what proves who it is.
func NewCertificates(addr string, ca *pki.Bundle, p Proof) (*Certificates, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	c := &Certificates{csr: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))}
	config := &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS12}
	if p == ByToken {
		c.token = "ns-0/svc-0"
	} else {
		id := identity.SPIFFE{TrustDomain: "cluster.local", Namespace: "ns-0", ServiceAccount: "svc-0"}
		chain, err := ca.Sign([]byte(c.csr), id, pki.Validity{Now: time.Now(), TTL: time.Hour})
		if err != nil {
			return nil, fmt.Errorf("sign own certificate: %w", err)
		}
		block, _ := pem.Decode([]byte(chain[0]))
		config.Certificates = []tls.Certificate{{Certificate: [][]byte{block.Bytes}, PrivateKey: key}}
	}
	c.conn, err = grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		return nil, fmt.Errorf("connect to CA: %w", err)
	}
	c.client = istioca.NewIstioCertificateServiceClient(c.conn)
	return c, nil
}

// Close ends the connection.
func (c *Certificates) Close() { c.conn.Close() }

// Run asks n times, as fast as answers come.
func (c *Certificates) Run(ctx context.Context, n int) (Answers, error) {
	width := 8
	if c.token != "" {
		width = 1 // the CA lets one peer have few tokens reviewed at once
	}
	return atRate(ctx, 0, n, width, func(int) error {
		call := ctx
		if c.token != "" {
			call = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
		}
		r, err := c.client.CreateCertificate(call, &istioca.IstioCertificateRequest{Csr: c.csr})
		if err == nil && len(r.GetCertChain()) < 2 {
			err = errors.New("the chain is too short")
		}
		return err
	})
}
