// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package status is the agent's HTTP server, on Istio's port 15020 and paths:
//
//	/healthz/ready       is the proxy configured and serving (kubelet, by 15021)
//	/app-health/…        the application's own probes, which the kubelet cannot ask
//	                     where plaintext is refused
//	/app-lifecycle/…     its lifecycle calls, likewise
//	/stats/prometheus    metrics of agent, Envoy and application in one
//	/drain, /quitquitquit   end, by the pod itself only
package status

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
)

// Envoy is what the server asks of the proxy.
type Envoy interface {
	Scraper
	Stats(ctx context.Context, filter string) (map[string]int64, error)
}

// Options of a Server.
type Options struct {
	Envoy Envoy
	// Probers by path.
	Probers map[string]Prober
	// ProbeFrom and ProbeTo are the addresses between which probes go.
	ProbeFrom, ProbeTo string
	// App is where the application has metrics; nil if nowhere.
	App *Target
	// Agent's own metrics.
	Agent prometheus.Gatherer
	// Drain and Quit are called at most once each, without waiting. Nil means that
	// nobody may ask for it: a gateway's own Envoy calls from loopback on behalf of
	// others, who choose the name that it resolves.
	Drain, Quit func()
	Log         logr.Logger
}

// Server answers. NewServer makes one.
type Server struct {
	options  Options
	draining atomic.Bool
}

// NewServer returns a Server that is not ready before Envoy is.
func NewServer(o Options) *Server { return &Server{options: o} }

// SetDraining makes readiness fail from now on.
func (s *Server) SetDraining() { s.draining.Store(true) }

// Serve answers on the listener until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	h := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = h.Close() })
	defer stop()
	if err := h.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve status: %w", err)
	}
	return nil
}

// Handler routes the paths.
func (s *Server) Handler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("/healthz/ready", s.ready)
	m.HandleFunc("/stats/prometheus", s.metrics)
	if s.options.Drain != nil {
		m.HandleFunc("POST /drain", localOnly(s.options.Drain))
	}
	if s.options.Quit != nil {
		m.HandleFunc("POST /quitquitquit", localOnly(s.options.Quit))
	}
	probe := newProber(s.options.Probers, s.options.ProbeFrom, s.options.ProbeTo)
	m.Handle("/app-health/", probe)
	m.Handle("/app-lifecycle/", probe)
	return m
}

const readyStats = `^(cluster_manager\.cds\.update_success|listener_manager\.lds\.update_success|listener_manager\.workers_started|server\.state)$`

func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	if err := s.checkReady(r.Context()); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ready\n"))
}

// checkReady is Istio's rule: Envoy is live, its workers run, and clusters and
// listeners came from the control plane.
func (s *Server) checkReady(ctx context.Context) error {
	if s.draining.Load() {
		return errors.New("draining")
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	stats, err := s.options.Envoy.Stats(ctx, readyStats)
	if err != nil {
		return err
	}
	state, known := stats["server.state"]
	switch {
	case stats["cluster_manager.cds.update_success"] == 0:
		return errors.New("no clusters from the control plane yet")
	case stats["listener_manager.lds.update_success"] == 0:
		return errors.New("no listeners from the control plane yet")
	case !known || state != 0:
		return fmt.Errorf("envoy is not live: state %d", state)
	case stats["listener_manager.workers_started"] == 0:
		return errors.New("envoy's workers have not started")
	}
	return nil
}

// localOnly refuses callers from elsewhere: whoever may reach the pod must not be
// able to end it.
func localOnly(do func()) http.HandlerFunc {
	var once atomic.Bool
	return func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
			http.Error(w, "only from the pod itself", http.StatusForbidden)
			return
		}
		if once.CompareAndSwap(false, true) {
			do()
		}
		_, _ = w.Write([]byte("OK\n"))
	}
}
