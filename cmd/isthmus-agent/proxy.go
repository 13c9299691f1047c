// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"runtime"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/internal/agent"
	"github.com/isthmus-mesh/isthmus/internal/agent/bootstrap"
	"github.com/isthmus-mesh/isthmus/internal/agent/proxy"
)

func proxyCommand(log logr.Logger) *cobra.Command {
	c := &cobra.Command{
		Use:   "proxy",
		Short: "run Envoy with its keys, certificates, health and metrics",
	}
	c.AddCommand(
		roleCommand(log, bootstrap.Sidecar, "beside an application"),
		roleCommand(log, bootstrap.Router, "as a gateway"),
	)
	return c
}

func roleCommand(log logr.Logger, role bootstrap.Role, short string) *cobra.Command {
	// A sidecar gets two workers at most unless told otherwise, as in Istio: it
	// should not take a node for itself.
	workers := runtime.GOMAXPROCS(0)
	if role == bootstrap.Sidecar {
		workers = min(workers, 2)
	}
	s := agent.Settings{Role: role, Workers: workers}
	c := &cobra.Command{
		Use:   string(role),
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			conf, err := agent.Configure(agent.ParseEnvironment(os.Environ()), s)
			if err != nil {
				return err
			}
			err = agent.Run(c.Context(), conf, log)
			var exit *proxy.ExitError
			if errors.As(err, &exit) {
				log.Error(err, "stopping")
				return exitCode(exit.Code)
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&s.Root, "root", "/", "directory under which mounted and written files lie")
	f.StringVar(&s.EnvoyPath, "envoy", "/usr/local/bin/envoy", "program to run")
	f.StringVar(&s.Admin, "admin", "", "address or socket of Envoy's admin interface")
	f.StringVar(&s.ClusterDomain, "cluster-domain", "cluster.local", "DNS suffix of Services")
	f.Uint16Var(&s.StatusPort, "status-port", 15020, "port of the agent")
	f.Uint16Var(&s.HealthPort, "health-port", 15021, "port of Envoy's health listener")
	f.Uint16Var(&s.MetricsPort, "metrics-port", 15090, "port of Envoy's metrics listener")
	return c
}
