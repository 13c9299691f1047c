// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package authn answers who is calling a gRPC service of isthmusd: a client
// certificate first, then a bearer token, as Istio's proxies and agents present
// them (wire contract, 1.4). Every stream is checked anew against the roots of
// the moment, because a connection outlives rotations.
package authn

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"k8s.io/utils/clock"

	"github.com/isthmus-mesh/isthmus/internal/identity"
)

// Audience that tokens for isthmusd must have.
const Audience = "istio-ca"

// Method is how a caller proved who it is.
type Method string

// The methods, in the order in which they are tried.
const (
	Certificate Method = "certificate"
	Token       Method = "token"
	// Anonymous callers are let in over plaintext on loopback only; they have no identity.
	Anonymous Method = "anonymous"
)

// Caller is who opened a stream.
type Caller struct {
	// Identity is the zero value for anonymous callers.
	Identity identity.SPIFFE
	Method   Method
	// Pod that a token is bound to; "" when not known.
	Pod string
	// NotAfter is when the proof ends; zero when it does not say.
	NotAfter time.Time
}

// Verified tells whether the caller proved an identity.
func (c Caller) Verified() bool { return c.Identity != (identity.SPIFFE{}) }

// Subject is whom a token names.
type Subject struct {
	// Name is system:serviceaccount:<namespace>:<account>.
	Name string
	// Pod that the token is bound to, or "".
	Pod string
	// NotAfter is when the token ends; zero when not known.
	NotAfter time.Time
}

// Verifier checks a bearer token for an audience. Its errors are shown to the
// caller and must not hold the token. ErrUnavailable says that the verifier
// itself could not be asked.
type Verifier interface {
	Verify(ctx context.Context, token string) (Subject, error)
}

// ErrUnavailable is wrapped by an error of a Verifier or of Options.Accounts when
// the answer is not a refusal: the caller should try again.
var ErrUnavailable = errors.New("cannot be verified now")

// Options of an Authenticator.
type Options struct {
	// TrustDomain that identities must have.
	TrustDomain string
	// Roots that client certificates must lead to; asked for every stream.
	Roots func() *x509.CertPool
	// Tokens verifies bearer tokens; nil refuses them.
	Tokens Verifier
	// Accounts is an error for an identity whose account is gone: a certificate
	// outlives it, and would be renewed for good. It may wrap ErrUnavailable. Nil
	// takes all accounts to be there.
	Accounts func(ctx context.Context, id identity.SPIFFE) error
	// Clock defaults to the real one.
	Clock clock.PassiveClock
}

// Authenticator tells who is calling. Safe for concurrent use.
type Authenticator struct {
	o Options
}

// New returns an Authenticator.
func New(o Options) *Authenticator {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	return &Authenticator{o: o}
}

// Authenticate finds out who opened the stream of this context. Its errors are
// gRPC statuses: Unauthenticated, or Unavailable when asking failed.
func (a *Authenticator) Authenticate(ctx context.Context) (Caller, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Caller{}, status.Error(codes.Unauthenticated, "no peer")
	}
	var refusals []error
	if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
		if len(info.State.PeerCertificates) > 0 {
			c, err := a.certificate(ctx, info.State.PeerCertificates)
			if err == nil {
				return c, nil
			}
			refusals = append(refusals, err)
		}
	} else if !loopback(p.Addr) {
		return Caller{}, status.Error(codes.Unauthenticated, "plaintext is for loopback only")
	} else if _, given := bearer(ctx); !given {
		return Caller{Method: Anonymous}, nil
	}
	token, given := bearer(ctx)
	if !given {
		if why := errors.Join(refusals...); errors.Is(why, ErrUnavailable) {
			return Caller{}, status.Error(codes.Unavailable, why.Error())
		}
		refusals = append(refusals, errors.New("no bearer token"))
		return Caller{}, refused(refusals)
	}
	c, err := a.token(ctx, token)
	if errors.Is(err, ErrUnavailable) {
		return Caller{}, status.Error(codes.Unavailable, err.Error())
	}
	if err != nil {
		return Caller{}, refused(append(refusals, err))
	}
	return c, nil
}

func refused(why []error) error {
	text := make([]string, 0, len(why))
	for _, e := range why {
		text = append(text, e.Error())
	}
	return status.Error(codes.Unauthenticated, "not authenticated: "+strings.Join(text, "; "))
}

func (a *Authenticator) certificate(ctx context.Context, chain []*x509.Certificate) (Caller, error) {
	leaf, between := chain[0], x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	id, err := identity.FromCertificate(leaf)
	if err != nil {
		return Caller{}, fmt.Errorf("client certificate: %w", err)
	}
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots:         a.o.Roots(),
		Intermediates: between,
		CurrentTime:   a.o.Clock.Now(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return Caller{}, fmt.Errorf("client certificate of %s: %w", id, err)
	}
	if id.TrustDomain != a.o.TrustDomain {
		return Caller{}, fmt.Errorf("client certificate of %s: trust domain is not %s", id, a.o.TrustDomain)
	}
	if a.o.Accounts != nil {
		if err := a.o.Accounts(ctx, id); err != nil {
			return Caller{}, fmt.Errorf("client certificate of %s: %w", id, err)
		}
	}
	return Caller{Identity: id, Method: Certificate, NotAfter: leaf.NotAfter}, nil
}

func (a *Authenticator) token(ctx context.Context, token string) (Caller, error) {
	if a.o.Tokens == nil {
		return Caller{}, errors.New("tokens are not accepted here")
	}
	s, err := a.o.Tokens.Verify(ctx, token)
	if err != nil {
		return Caller{}, fmt.Errorf("token: %w", err)
	}
	id, err := identity.FromSubject(a.o.TrustDomain, s.Name)
	if err != nil {
		return Caller{}, fmt.Errorf("token: %w", err)
	}
	if !s.NotAfter.IsZero() && !a.o.Clock.Now().Before(s.NotAfter) {
		return Caller{}, fmt.Errorf("token of %s has expired", id)
	}
	return Caller{Identity: id, Method: Token, Pod: s.Pod, NotAfter: s.NotAfter}, nil
}

func bearer(ctx context.Context) (string, bool) {
	md, _ := metadata.FromIncomingContext(ctx)
	return bearerOf(md.Get("authorization"))
}

func bearerOf(headers []string) (string, bool) {
	for _, v := range headers {
		const scheme = "bearer "
		if len(v) > len(scheme) && strings.EqualFold(v[:len(scheme)], scheme) {
			return strings.TrimSpace(v[len(scheme):]), true
		}
	}
	return "", false
}

func loopback(addr net.Addr) bool {
	switch a := addr.(type) {
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	default:
		return false
	}
}
