// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package webhook answers the API server: /inject gives pods their proxy,
// /validate applies the rules to Istio's objects. It speaks admission.k8s.io/v1
// over HTTPS at Istio's paths, decides nothing itself (packages inject and
// validate do), and answers every request, however broken.
package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-mesh/isthmus/internal/inject"
	"github.com/isthmus-mesh/isthmus/internal/validate"
)

// Source is what answers depend on. Every request asks anew, so that a change of
// configuration needs no restart.
type Source interface {
	// Injector in force; an error if the configuration is not known yet or bad.
	Injector() (*inject.Injector, error)
	// Rules of validation in force.
	Rules() validate.Rules
	// NamespaceLabels of a namespace. It may wait for one that is new, as long as
	// the context lasts; an error makes the API server's client try again.
	NamespaceLabels(ctx context.Context, name string) (map[string]string, error)
}

// Options of a Server. All but TLS are needed; TLS only for Serve.
type Options struct {
	Source Source
	// TLS holds the serving certificate; GetCertificate lets it rotate.
	TLS *tls.Config
	// Registerer takes the metrics.
	Registerer prometheus.Registerer
	Log        logr.Logger
}

// Server answers admission requests.
type Server struct {
	source  Source
	tls     *tls.Config
	metrics *metrics
	log     logr.Logger
}

// New makes a Server and registers its metrics.
func New(o Options) (*Server, error) {
	if o.Source == nil || o.Registerer == nil {
		return nil, errors.New("webhook: source and registerer must be set")
	}
	m := newMetrics()
	for _, c := range m.collectors() {
		if err := o.Registerer.Register(c); err != nil {
			return nil, fmt.Errorf("webhook: register metrics: %w", err)
		}
	}
	return &Server{source: o.Source, tls: o.TLS, metrics: m, log: o.Log}, nil
}

// Handler serves /inject and /validate with all that is below them.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for path, answer := range map[string]answerer{"/inject": s.inject, "/validate": s.validate} {
		h := s.admission(answer)
		mux.Handle(path, h)
		mux.Handle(path+"/", h)
	}
	return mux
}

// Limits on clients. The API server gives a webhook at most 30 seconds.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 15 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = 90 * time.Second
	drainTimeout  = 5 * time.Second
)

// Serve answers on the listener until the context ends, then lets requests that
// are under way finish.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if s.tls == nil {
		return errors.New("webhook: no TLS configuration to serve with")
	}
	srv := &http.Server{
		Handler: s.Handler(), TLSConfig: s.tls,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout,
		WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.ServeTLS(l, "", "") }()
	select {
	case err := <-failed:
		return fmt.Errorf("webhook: serve: %w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := srv.Shutdown(drain); err != nil {
		return fmt.Errorf("webhook: shut down: %w", err)
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("webhook: serve: %w", err)
	}
	return nil
}
