// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package credential

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	istioca "istio.io/api/security/v1alpha1"
)

// callTimeout bounds one request for a certificate, dialling included.
const callTimeout = 10 * time.Second

// Authority is the CA as seen from a pod.
type Authority struct {
	// Address as host:port and the DNS name that its certificate must have.
	Address, ServerName string
	// RootFile holds the roots to trust; TokenFile the service account token.
	// Both are read for each request, as both are renewed under us.
	RootFile, TokenFile string
	// ClusterID tells which cluster's API server knows the token.
	ClusterID string
	// Identity as a SPIFFE ID, for the request.
	Identity string
	// TTL to ask for; the CA may give less.
	TTL time.Duration
}

// Issue gets a new certificate for a new key. The one before proves who asks if it
// is given and valid; the token does otherwise, and when the certificate is
// refused.
func (a *Authority) Issue(ctx context.Context, before *Certificate, now time.Time) (*Certificate, error) {
	if before == nil || !before.Valid(now) {
		return a.issue(ctx, nil)
	}
	c, err := a.issue(ctx, before)
	if err == nil || ctx.Err() != nil {
		return c, err
	}
	c, tokenErr := a.issue(ctx, nil)
	if tokenErr != nil {
		return nil, errors.Join(err, tokenErr)
	}
	return c, nil
}

func (a *Authority) issue(ctx context.Context, before *Certificate) (*Certificate, error) {
	how := "token"
	if before != nil {
		how = "certificate"
	}
	c, err := a.request(ctx, before)
	if err != nil {
		return nil, fmt.Errorf("get certificate from %s by %s: %w", a.Address, how, err)
	}
	return c, nil
}

func (a *Authority) request(ctx context.Context, before *Certificate) (*Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	conf, err := a.tls(before)
	if err != nil {
		return nil, err
	}
	md := metadata.Pairs("clusterid", a.ClusterID)
	if before == nil {
		token, err := os.ReadFile(a.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("read token: %w", err)
		}
		md.Set("authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	key, csr, err := newRequest(a.Identity)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("dns:///"+a.Address, grpc.WithTransportCredentials(credentials.NewTLS(conf)))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	res, err := istioca.NewIstioCertificateServiceClient(conn).CreateCertificate(
		metadata.NewOutgoingContext(ctx, md),
		&istioca.IstioCertificateRequest{Csr: string(csr), ValidityDuration: int64(a.TTL / time.Second)},
	)
	if err != nil {
		return nil, err
	}
	return newCertificate(key, res.GetCertChain())
}

func (a *Authority) tls(before *Certificate) (*tls.Config, error) {
	roots, err := os.ReadFile(a.RootFile)
	if err != nil {
		return nil, fmt.Errorf("read roots: %w", err)
	}
	if before != nil {
		roots = merge(roots, before.Roots)
	}
	conf := &tls.Config{ServerName: a.ServerName, RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	if !conf.RootCAs.AppendCertsFromPEM(roots) {
		return nil, fmt.Errorf("no certificate in %s", a.RootFile)
	}
	if before != nil {
		conf.Certificates = []tls.Certificate{before.Pair}
	}
	return conf, nil
}
