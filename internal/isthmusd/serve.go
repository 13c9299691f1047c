// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package isthmusd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/generate"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/webhook"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/xds"
	"github.com/isthmus-mesh/isthmus/internal/lifecycle"
	"github.com/isthmus-mesh/isthmus/internal/memory"
)

// grace is how long streams may take to end after GOAWAY. ADS streams never do
// by themselves, so a longer one only delays the proxies' way to another replica.
const grace = 2 * time.Second

// assemble opens the listeners and lists the parts; the last stops first.
func (d *Daemon) assemble() error {
	d.xds = xds.New(xds.Options{
		Source: d.catalog, Identities: d.security.callers, Pods: pods{d.store}, Owners: generate.Owners,
		Metrics: d.metrics, Log: d.log.WithName("xds"),
	})
	d.parts = []lifecycle.Part{
		{Name: "ingest", Run: d.ingest.Run},
		{Name: "readiness", Run: d.watchReady},
		{Name: "memory", Run: memory.Keeper{Every: 500 * time.Millisecond, Calm: 1 << 20, Least: 16 << 20}.Run},
	}
	a := d.cfg.Addresses
	err := errors.Join(
		d.serveHTTP("http", a.HTTP, d.debugHandler(), nil),
		d.serveHTTP("monitoring", a.Monitoring, d.monitoringHandler(), nil),
		d.serveDistribution(a.Distribution),
		d.servePlain(a.GRPC),
		d.serveSecure(a.SecureGRPC),
		d.serveWebhook(a.Webhook),
	)
	if err == nil {
		d.parts = append(d.parts, d.security.follow...)
	}
	return err
}

func (d *Daemon) listen(part, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("serve %s: %w", part, err)
	}
	d.bound[part] = l.Addr()
	d.closers = append(d.closers, l)
	return l, nil
}

func (d *Daemon) close() {
	for _, c := range d.closers {
		c.Close()
	}
}

// serveDistribution serves the operator, if the configuration names one.
func (d *Daemon) serveDistribution(addr string) error {
	if addr == "" {
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("GET /distribution", d.operator.Handler(d.xds.DistributionHandler()))
	return d.serveHTTP("distribution", addr, mux, d.security.serving.HTTPS())
}

// serveHTTP serves over TLS if there is a configuration of that.
func (d *Daemon) serveHTTP(part, addr string, h http.Handler, secure *tls.Config) error {
	if addr == "" {
		return nil
	}
	l, err := d.listen(part, addr)
	if err != nil {
		return err
	}
	if secure != nil {
		l = tls.NewListener(l, secure)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 90 * time.Second}
	d.parts = append(d.parts, lifecycle.Part{Name: part, Run: func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
		defer stop()
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", part, err)
		}
		return nil
	}})
	return nil
}

// servePlain serves discovery without TLS; that addr is on loopback was checked.
func (d *Daemon) servePlain(addr string) error {
	if addr == "" {
		return nil
	}
	srv := grpc.NewServer(xds.ServerOptions()...)
	d.xds.Register(srv)
	return d.serveGRPC("grpc", addr, srv)
}

func (d *Daemon) serveSecure(addr string) error {
	if addr == "" || d.security.authority == nil {
		return nil
	}
	bounded := authn.NewCredentials(d.security.serving.GRPC(), nil)
	srv := grpc.NewServer(append(xds.ServerOptions(), grpc.Creds(bounded))...)
	d.xds.Register(srv)
	d.security.authority.Register(srv)
	return d.serveGRPC("secure-grpc", addr, srv)
}

func (d *Daemon) serveGRPC(part, addr string, srv *grpc.Server) error {
	l, err := d.listen(part, addr)
	if err != nil {
		return err
	}
	d.parts = append(d.parts, lifecycle.Part{Name: part, Run: func(ctx context.Context) error {
		gone := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			defer close(gone)
			late := time.AfterFunc(grace, srv.Stop)
			defer late.Stop()
			srv.GracefulStop()
		})
		err := srv.Serve(l)
		if !stop() {
			<-gone
		}
		if err != nil {
			return fmt.Errorf("serve %s: %w", part, err)
		}
		return nil
	}})
	return nil
}

func (d *Daemon) serveWebhook(addr string) error {
	if addr == "" || d.security.authority == nil {
		return nil
	}
	srv, err := webhook.New(webhook.Options{
		Source: d.admit, TLS: d.security.serving.HTTPS(), Registerer: d.metrics, Log: d.log.WithName("webhook"),
	})
	if err != nil {
		return err
	}
	l, err := d.listen("webhook", addr)
	if err != nil {
		return err
	}
	d.parts = append(d.parts, lifecycle.Part{Name: "webhook", Run: func(ctx context.Context) error {
		return srv.Serve(ctx, l)
	}})
	return nil
}
