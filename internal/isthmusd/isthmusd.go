// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package isthmusd wires the control plane together:
//
//	ingest ─▶ snapshot ─▶ catalog ─▶ xds ─▶ proxies        (generate translates)
//	             │                    └ authn, ca          (who calls, certificates)
//	             └▶ webhook ─▶ API server                  (injection, validation)
//
// The engines know nothing of each other; what connects them is here.
package isthmusd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/apiserver"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/catalog"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/generate"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ingest"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/xds"
	"github.com/isthmus-mesh/isthmus/internal/lifecycle"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// Config of a control plane. Exactly one of ConfigDir and Kubernetes is set.
type Config struct {
	// ConfigDir is a directory of YAML to serve from.
	ConfigDir string
	// Kubernetes is the API server to serve from.
	Kubernetes *rest.Config
	// Topology names the MeshTopology and holds what is true without its
	// ConfigMap: namespace, revision, trust domain, cluster domain.
	Topology topology.Config
	// Addresses to serve on.
	Addresses Addresses
	// CADir holds the CA's files when there is no Kubernetes; made if absent.
	CADir string
	// Operator is the account that may ask how far a configuration has got.
	Operator string
	// TokenKey is a file with the public key of tokens when there is no Kubernetes.
	TokenKey string
	Log      *slog.Logger
	// Now tells the time by which watches stall; nil is the real one.
	Now func() time.Time
}

// Addresses to serve on; an empty one is not served.
type Addresses struct {
	// GRPC is plaintext discovery, on loopback only.
	GRPC string
	// SecureGRPC is discovery and the certificate service over TLS.
	SecureGRPC string
	// Webhook is admission over HTTPS.
	Webhook string
	// HTTP is readiness, debugging and metrics.
	HTTP string
	// Monitoring is readiness and metrics, for others in the cluster.
	Monitoring string
	// Distribution tells the operator over HTTPS how far a configuration has got.
	Distribution string
}

// Daemon is a control plane ready to run.
type Daemon struct {
	cfg     Config
	log     logr.Logger
	metrics *prometheus.Registry
	// api reaches Kubernetes; nil without.
	api      *apiserver.Client
	store    *snapshot.Store
	ingest   *ingest.Ingest
	catalog  *catalog.Catalog
	xds      *xds.Server
	security *security
	// operator lets the operator in; nil without Kubernetes.
	operator *authn.Gate
	admit    *admission
	parts    []lifecycle.Part
	bound    map[string]net.Addr
	closers  []io.Closer
}

// New checks the Config, loads the CA and opens the listeners. In Kubernetes it
// waits for the CA Secret as long as ctx lasts.
func New(ctx context.Context, cfg Config) (*Daemon, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg.Topology = ingest.Defaults(cfg.Topology)
	d := &Daemon{
		cfg: cfg, log: logr.FromSlogHandler(cfg.Log.Handler()),
		metrics: prometheus.NewRegistry(), bound: map[string]net.Addr{},
	}
	d.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mesh, err := ingest.ParseMesh("", cfg.Topology)
	if err != nil {
		return nil, err
	}
	d.store = snapshot.NewStore(cfg.Topology, mesh)
	d.catalog = catalog.New(catalog.Options{
		Builder: generate.New(), Log: cfg.Log.With("part", "catalog"), Metrics: catalog.NewMetrics(d.metrics),
	})
	d.admit = newAdmission(d.store)
	source, kube, err := d.source()
	if err != nil {
		return nil, err
	}
	pace := &pace{responses: func() uint64 { return d.xds.Responses() }, now: time.Now}
	d.ingest = ingest.New(ingest.Options{
		Store: d.store, Sink: pace.then(d.commit), Rest: pace.rest, Log: cfg.Log.With("part", "ingest"), Metrics: d.metrics, Now: cfg.Now,
	}, source)
	if err := d.secure(ctx, kube); err != nil {
		return nil, err
	}
	if err := d.assemble(); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (c *Config) check() error {
	if (c.ConfigDir == "") == (c.Kubernetes == nil) {
		return errors.New("give either a configuration directory or a Kubernetes API server")
	}
	if c.Log == nil {
		return errors.New("log must be set")
	}
	if c.ConfigDir != "" {
		if info, err := os.Stat(c.ConfigDir); err != nil || !info.IsDir() {
			return fmt.Errorf("configuration directory %s is not a directory: %w", c.ConfigDir, errors.Join(err, fs.ErrInvalid))
		}
	}
	if c.Addresses.Distribution != "" && (c.Kubernetes == nil || c.Operator == "") {
		return errors.New("the distribution is served to an operator in Kubernetes only")
	}
	return loopbackOnly(c.Addresses.GRPC)
}

// loopbackOnly refuses to serve plaintext to the network: whoever connects there
// is believed to be who it says.
func loopbackOnly(addr string) error {
	if addr == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("plaintext gRPC address %q: %w", addr, err)
	}
	if ip := net.ParseIP(host); host == "localhost" || (ip != nil && ip.IsLoopback()) {
		return nil
	}
	return fmt.Errorf("plaintext gRPC address %q: only loopback may be served without TLS, "+
		"for instance 127.0.0.1:15010; serve others with the secure gRPC address", addr)
}

// source is where the world comes from; kube is nil unless that's an API server.
func (d *Daemon) source() (source ingest.Source, kube *ingest.Kube, err error) {
	c := ingest.Converter{Topology: d.cfg.Topology, Standalone: d.cfg.ConfigDir != ""}
	log := d.cfg.Log.With("part", "ingest")
	if c.Standalone {
		return &ingest.Dir{Path: d.cfg.ConfigDir, Converter: c, Log: log}, nil, nil
	}
	if d.api, err = apiserver.New(d.cfg.Kubernetes); err != nil {
		return nil, nil, err
	}
	kube = ingest.NewKube(d.api, c, log)
	return kube, kube, nil
}

// commit passes a new snapshot on.
func (d *Daemon) commit(s *snapshot.Snapshot, changes snapshot.Changes) {
	d.catalog.Update(s, changes)
	d.admit.update(s, changes)
}

// verifier of tokens: the API server, or a key in a file, or none.
func (d *Daemon) verifier() (authn.Verifier, error) {
	if d.api != nil {
		reviews := d.api.TokenReviews()
		d.operator = &authn.Gate{Tokens: authn.NewReviewer(reviews, topology.DistributionAudience, nil), Subject: d.cfg.Operator}
		return authn.NewReviewer(reviews, authn.Audience, nil), nil
	}
	if d.cfg.TokenKey == "" {
		return nil, nil
	}
	data, err := os.ReadFile(d.cfg.TokenKey)
	if err != nil {
		return nil, fmt.Errorf("read token key: %w", err)
	}
	return authn.NewStaticKey(data, nil)
}

// Run serves until ctx ends, or a part fails.
func (d *Daemon) Run(ctx context.Context) error {
	defer d.close()
	d.cfg.Log.Info("isthmusd runs", "topology", d.cfg.Topology.Name, "revision", d.cfg.Topology.Revision)
	return lifecycle.Run(ctx, d.parts...)
}

// Addr tells where a part listens: grpc, secure-grpc, webhook, http, monitoring,
// distribution. It's nil for what is not served.
func (d *Daemon) Addr(part string) net.Addr { return d.bound[part] }

// pods finds pods for the discovery server.
type pods struct{ store *snapshot.Store }

// Pod implements xds.Pods.
func (p pods) Pod(k model.Key) *model.Workload { return p.store.Current().Workload(k) }

// watchReady logs when the first State can be built.
func (d *Daemon) watchReady(ctx context.Context) error {
	start := time.Now()
	notify := make(chan struct{}, 1)
	defer d.catalog.Watch(notify)()
	for !d.catalog.Ready() {
		select {
		case <-ctx.Done():
			return nil
		case <-notify:
		}
	}
	d.cfg.Log.Info("ready", "after", time.Since(start).String(), "revision", d.store.Current().Revision())
	<-ctx.Done()
	return nil
}
