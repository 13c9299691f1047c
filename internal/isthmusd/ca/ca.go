// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package ca is the mesh's certificate authority: it signs what authenticated
// workloads ask for (Istio's CreateCertificate, wire contract 1.5) and issues
// isthmusd's own serving certificates. Its bundle can be swapped while it
// serves; nothing is cached that would outlive a swap.
package ca

import (
	"context"
	"crypto/x509"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	istioca "istio.io/api/security/v1alpha1"
	"k8s.io/utils/clock"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
	"github.com/isthmus-mesh/isthmus/internal/pki"
)

const (
	// DefaultTTL is given to requests that do not say.
	DefaultTTL = 24 * time.Hour
	// MaxTTL bounds what a request may ask for, unless Options say otherwise.
	MaxTTL = 90 * 24 * time.Hour
	// impersonated is the request metadata by which a node asks in another's
	// name. Nobody is trusted to.
	impersonated = "ImpersonatedIdentity"
)

// Identities tells who opened a call; see authn.Authenticator.
type Identities interface {
	Authenticate(ctx context.Context) (authn.Caller, error)
}

// Options of an Authority.
type Options struct {
	// Bundle to begin with.
	Bundle *pki.Bundle
	// Identities of callers. Anonymous callers get nothing.
	Identities Identities
	// DefaultTTL and MaxTTL default to the constants of this package.
	DefaultTTL, MaxTTL time.Duration
	// Clock defaults to the real one.
	Clock clock.PassiveClock
	// Metrics are registered here when set.
	Metrics prometheus.Registerer
	Log     logr.Logger
}

// Authority signs certificates. Safe for concurrent use.
type Authority struct {
	istioca.UnimplementedIstioCertificateServiceServer
	o       Options
	current atomic.Pointer[generation]
	metrics *metrics
}

// generation is a bundle and what is derived from it, swapped as one.
type generation struct {
	bundle *pki.Bundle
	pool   *x509.CertPool
}

// New returns an Authority that signs with the bundle.
func New(o Options) *Authority {
	if o.DefaultTTL == 0 {
		o.DefaultTTL = DefaultTTL
	}
	if o.MaxTTL == 0 {
		o.MaxTTL = MaxTTL
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	a := &Authority{o: o, metrics: newMetrics(o.Metrics)}
	a.Swap(o.Bundle)
	return a
}

// Register adds the certificate service to a server.
func (a *Authority) Register(s grpc.ServiceRegistrar) {
	istioca.RegisterIstioCertificateServiceServer(s, a)
}

// Swap makes the bundle the one that signs and whose roots are trusted, from
// the next call on. The caller has it from pki.Load, so it is valid.
func (a *Authority) Swap(b *pki.Bundle) {
	a.current.Store(&generation{bundle: b, pool: b.Pool()})
	a.metrics.rootEnd.Set(float64(b.Roots()[0].NotAfter.Unix()))
	a.metrics.signerEnd.Set(float64(b.NotAfter().Unix()))
}

// Bundle is the one that signs now.
func (a *Authority) Bundle() *pki.Bundle { return a.current.Load().bundle }

// Roots to trust now, for authn.Options; not to be modified.
func (a *Authority) Roots() *x509.CertPool { return a.current.Load().pool }

// CreateCertificate implements the Istio certificate service.
func (a *Authority) CreateCertificate(ctx context.Context, r *istioca.IstioCertificateRequest) (*istioca.IstioCertificateResponse, error) {
	a.metrics.requests.Inc()
	chain, err := a.create(ctx, r)
	if err != nil {
		a.metrics.refused.WithLabelValues(status.Code(err).String()).Inc()
		return nil, err
	}
	a.metrics.issued.Inc()
	return &istioca.IstioCertificateResponse{CertChain: chain}, nil
}

func (a *Authority) create(ctx context.Context, r *istioca.IstioCertificateRequest) ([]string, error) {
	caller, err := a.o.Identities.Authenticate(ctx)
	if err != nil {
		return nil, err
	}
	if !caller.Verified() {
		return nil, status.Error(codes.Unauthenticated, "certificates are for callers with an identity")
	}
	if r.GetMetadata().GetFields()[impersonated].GetStringValue() != "" {
		return nil, status.Errorf(codes.PermissionDenied, "%s may not ask in the name of another", caller.Identity)
	}
	ttl := time.Duration(min(r.GetValidityDuration(), int64(a.o.MaxTTL/time.Second))) * time.Second
	if ttl <= 0 {
		ttl = min(a.o.DefaultTTL, a.o.MaxTTL)
	}
	validity := pki.Validity{Now: a.o.Clock.Now(), TTL: ttl}
	chain, err := a.Bundle().Sign([]byte(r.GetCsr()), caller.Identity, validity)
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "certificate for %s: %v", caller.Identity, err)
	}
	a.o.Log.V(1).Info("Issued certificate", "identity", caller.Identity.String(), "pod", caller.Pod, "ttl", ttl.String())
	return chain, nil
}
