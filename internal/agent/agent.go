// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package agent is what stands beside Envoy in a pod: it gets the workload's
// certificate, serves it to Envoy, starts Envoy, answers for its health, and ends
// it in good order. cmd/isthmus-agent reads the environment and calls Run.
//
//	status server ─ at once, so that probes get an answer
//	certificate   ─ token → CA → key and chain; then renewed for good
//	secrets       ─ served once both are there, or Envoy would back off
//	Envoy         ─ connects to isthmusd by itself, over TLS with these secrets
//
// The agent outlives Envoy: keys stay served and health answered while it drains.
package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/utils/clock"

	"github.com/isthmus-mesh/isthmus/internal/agent/bootstrap"
	"github.com/isthmus-mesh/isthmus/internal/agent/credential"
	"github.com/isthmus-mesh/isthmus/internal/agent/proxy"
	"github.com/isthmus-mesh/isthmus/internal/agent/sds"
	"github.com/isthmus-mesh/isthmus/internal/agent/status"
	"github.com/isthmus-mesh/isthmus/internal/memory"
)

// Config is everything that Run depends on. Paths are below Root.
type Config struct {
	// Root is "/" in a pod; tests run many agents side by side, each in its own.
	Root string
	// Bootstrap, but for nothing: it's complete.
	Bootstrap bootstrap.Params
	// Authority is the CA; its files are paths below Root.
	Authority credential.Authority
	// Envoy's command; Dir and Bootstrap are set by Run.
	Envoy proxy.Command
	// StatusListen is where the agent answers.
	StatusListen string
	// Application says how to probe and scrape it.
	Application Application
	// Drain at the end.
	Drain proxy.Drain
}

// Application is what the agent does for the application's sake.
type Application struct {
	Probers map[string]status.Prober
	Metrics *status.Target
}

// Where the bootstrap is written, and from where the application is probed: the
// address that the redirect lets pass.
const (
	bootstrapFile = "etc/istio/proxy/envoy-rev.json"
	probeFrom4    = "127.0.0.6"
	probeFrom6    = "::6"
)

// stopTime is what Envoy gets to end once it is drained.
const stopTime = 5 * time.Second

// small keeps the agent small beside every application: it has little to do once
// Envoy runs.
var small = memory.Keeper{Every: 5 * time.Second, Calm: 256 << 10, Least: 2 << 20}

// Run runs the proxy until ctx ends, then drains it. An ExitError of package proxy
// says that Envoy ended by itself.
func Run(ctx context.Context, c Config, log logr.Logger) error {
	a := newAgent(c, log)
	status, err := a.listenStatus(ctx)
	if err != nil {
		return err
	}
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	// life is longer than ctx: it ends when the proxy has ended.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	g, life := errgroup.WithContext(life)
	server := a.statusServer(life, quit)
	keeper := a.keeper()
	g.Go(func() error { return server.Serve(life, status) })
	g.Go(func() error { return keeper.Run(life) })
	g.Go(func() error { return small.Run(life) })
	g.Go(func() error {
		defer end()
		return a.proxy(ctx, life, server)
	})
	return g.Wait()
}

type agent struct {
	config  Config
	log     logr.Logger
	store   *sds.Store
	admin   *proxy.Admin
	clock   clock.RealClock
	metrics *prometheus.Registry
	expiry  prometheus.Gauge
	// ready is closed when the first certificate is in the store.
	ready chan struct{}
	once  sync.Once
}

func newAgent(c Config, log logr.Logger) *agent {
	admin := c.Bootstrap.Admin
	if admin != "" && (admin[0] == '.' || admin[0] == '/') {
		admin = filepath.Join(c.Root, admin)
	}
	a := &agent{
		config: c, log: log,
		store:   sds.NewStore(),
		admin:   proxy.NewAdmin(admin),
		metrics: prometheus.NewRegistry(),
		expiry: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "isthmus_agent_certificate_expiry_timestamp_seconds",
			Help: "When the workload's certificate ends, in Unix time; 0 while there is none.",
		}),
		ready: make(chan struct{}),
	}
	a.metrics.MustRegister(a.expiry)
	return a
}

func (a *agent) listenStatus(ctx context.Context) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a.config.StatusListen)
	if err != nil {
		return nil, fmt.Errorf("listen for status: %w", err)
	}
	return l, nil
}

func (a *agent) statusServer(life context.Context, quit func()) *status.Server {
	to, from := a.config.Bootstrap.Node.IPs[0], probeFrom4
	if to.Is6() {
		from = probeFrom6
	}
	o := status.Options{
		Envoy:     a.admin,
		Probers:   a.config.Application.Probers,
		ProbeFrom: from,
		ProbeTo:   to.String(),
		App:       a.config.Application.Metrics,
		Agent:     a.metrics,
		Log:       a.log,
	}
	if a.config.Bootstrap.Node.Role != bootstrap.Router {
		o.Quit = quit
		o.Drain = func() {
			if err := a.admin.DrainListeners(life); err != nil {
				a.log.Error(err, "drain on request")
			}
		}
	}
	return status.NewServer(o)
}

func (a *agent) keeper() *credential.Keeper {
	authority := a.config.Authority
	authority.RootFile = a.path(authority.RootFile)
	authority.TokenFile = a.path(authority.TokenFile)
	return &credential.Keeper{
		Issuer:   &authority,
		RootFile: authority.RootFile,
		Changed:  a.publish,
		Clock:    a.clock,
		Jitter:   rand.Float64,
		Log:      a.log,
	}
}

// publish hands a new state to Envoy. Roots go first, so that a certificate of a
// new root is never presented to a peer that our own proxy would not trust.
func (a *agent) publish(s credential.State) {
	err := errors.Join(
		a.store.SetRoots(sds.NameRoots, s.Roots),
		a.store.SetCertificate(sds.NameDefault, s.Certificate.Chain, s.Certificate.Key),
	)
	if err != nil {
		a.log.Error(err, "publish certificate")
		return
	}
	a.expiry.Set(float64(s.Certificate.NotAfter().Unix()))
	a.once.Do(func() { close(a.ready) })
}

// proxy waits for the certificate, serves it, and runs Envoy to its end.
func (a *agent) proxy(ctx, life context.Context, s *status.Server) error {
	select {
	case <-a.ready:
	case <-ctx.Done():
		return nil
	}
	l, err := sds.Listen(a.path(bootstrap.SDSSocket))
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(life)
	g, serving := errgroup.WithContext(serving)
	g.Go(func() error { return sds.NewServer(a.store, a.config.Root, a.log).Serve(serving, l) })
	g.Go(func() error {
		defer stop()
		return a.envoy(ctx, serving, s)
	})
	return g.Wait()
}

func (a *agent) envoy(ctx, life context.Context, s *status.Server) error {
	p, err := a.startEnvoy()
	if err != nil {
		return err
	}
	a.log.Info("started envoy", "node", a.config.Bootstrap.Node.ID())
	select {
	case <-p.Done():
		return p.Err()
	case <-life.Done(): // another part failed; there is nobody to drain for us
		a.stop(p)
		return nil
	case <-ctx.Done():
	}
	s.SetDraining()
	a.log.Info("draining")
	if err := a.drain(life, p); err != nil {
		a.log.Error(err, "drain")
	}
	a.stop(p)
	return nil
}

func (a *agent) startEnvoy() (*proxy.Process, error) {
	b, err := bootstrap.Build(a.config.Bootstrap)
	if err != nil {
		return nil, err
	}
	file := a.path(bootstrapFile)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return nil, fmt.Errorf("make directory of bootstrap: %w", err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return nil, fmt.Errorf("write bootstrap: %w", err)
	}
	c := a.config.Envoy
	c.Dir, c.Bootstrap = a.config.Root, "./"+bootstrapFile
	return proxy.Start(c)
}

func (a *agent) drain(life context.Context, p *proxy.Process) error {
	ctx, cancel := context.WithCancel(life)
	defer cancel()
	go func() { // ends with ctx, at the latest when drain returns
		select {
		case <-p.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	return a.config.Drain.Run(ctx, a.admin)
}

func (a *agent) stop(p *proxy.Process) {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	p.Stop(ctx)
	a.log.Info("envoy has ended")
}

func (a *agent) path(p string) string { return filepath.Join(a.config.Root, p) }
