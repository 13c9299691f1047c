// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/isthmus-mesh/isthmus/controllers"
	"github.com/isthmus-mesh/isthmus/controllers/topology"
	"github.com/isthmus-mesh/isthmus/controllers/webhook"
	"github.com/isthmus-mesh/isthmus/internal/operator/crds"
	"github.com/isthmus-mesh/isthmus/internal/operator/distribution"
	"github.com/isthmus-mesh/isthmus/internal/version"
)

// options are the flags.
type options struct {
	kubeconfig              string
	settings                topology.Settings
	crds                    string
	metricsAddr, healthAddr string
	distributionToken       string
	leaderElection          bool
	logLevel                int
}

func defaults() *options {
	return &options{
		settings: topology.Settings{
			Version: version.Current, Registry: "isthmus", ClusterDomain: "cluster.local",
			Namespace: "isthmus-operator", ServiceAccount: "isthmus-operator",
		},
		crds:        string(crds.IfAbsent),
		metricsAddr: ":8080", healthAddr: ":8081",
		distributionToken: "/var/run/secrets/isthmus/token",
		leaderElection:    true,
	}
}

// answering is how long isthmusd gets to answer a question.
const answering = 3 * time.Second

func run(ctx context.Context, o *options) error {
	logger := logr.FromSlogHandler(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.Level(-o.logLevel)}))
	log.SetLogger(logger)
	klog.SetLogger(logger)
	mode, err := crds.ParseMode(o.crds)
	if err != nil {
		return fmt.Errorf("--istio-crds: %w", err)
	}
	mgr, err := manager(o)
	if err != nil {
		return err
	}
	if err := controllers.Setup(mgr, controllers.Options{
		Settings:     o.settings,
		Distribution: distribution.Client{Token: o.distributionToken, Timeout: answering},
		Prober:       webhook.TLS{Timeout: answering},
		Metrics:      metrics.Registry,
		Clock:        time.Now,
	}); err != nil {
		return err
	}
	keeper, err := crds.NewKeeper(mgr.GetConfig(), mode)
	if err != nil {
		return err
	}
	if err := mgr.Add(keeper); err != nil {
		return fmt.Errorf("add the keeper of CRDs: %w", err)
	}
	return mgr.Start(ctx)
}

func manager(o *options) (ctrl.Manager, error) {
	config, err := restConfig(o.kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = 100, 200
	config.UserAgent = "isthmus-operator/" + version.Current
	scheme, err := controllers.Scheme()
	if err != nil {
		return nil, err
	}
	cached, err := controllers.CacheOptions()
	if err != nil {
		return nil, err
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme, Cache: cached,
		Metrics:                       server.Options{BindAddress: o.metricsAddr},
		HealthProbeBindAddress:        o.healthAddr,
		LeaderElection:                o.leaderElection,
		LeaderElectionID:              "isthmus-operator",
		LeaderElectionNamespace:       o.settings.Namespace,
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return nil, fmt.Errorf("make the manager: %w", err)
	}
	if err := mgr.AddHealthzCheck("alive", healthz.Ping); err != nil {
		return nil, err
	}
	return mgr, mgr.AddReadyzCheck("alive", healthz.Ping)
}

func restConfig(path string) (*rest.Config, error) {
	if path == "" {
		return ctrl.GetConfig()
	}
	c, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", path, err)
	}
	return c, nil
}
