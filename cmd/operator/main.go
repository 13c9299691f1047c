// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Command operator reconciles MeshTopologies. "operator manifests" prints what
// installs it, without Helm.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/isthmus-mesh/isthmus/internal/version"
)

func main() {
	if err := root().ExecuteContext(ctrl.SetupSignalHandler()); err != nil {
		fmt.Fprintln(os.Stderr, "operator:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	o := defaults()
	c := &cobra.Command{
		Use:           "operator",
		Short:         "reconcile MeshTopologies",
		Version:       version.Current,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), o) },
	}
	f := c.Flags()
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "path of a kubeconfig; empty means the cluster it runs in, or the environment's")
	f.StringVar(&o.settings.Namespace, "namespace", o.settings.Namespace, "namespace that the operator runs in; of its lease too")
	f.StringVar(&o.settings.ServiceAccount, "service-account", o.settings.ServiceAccount, "service account that the operator runs as")
	f.StringVar(&o.settings.Registry, "image-registry", o.settings.Registry, "registry and path of images where a topology names none")
	f.StringVar(&o.settings.ClusterDomain, "cluster-domain", o.settings.ClusterDomain, "DNS suffix of Services")
	f.StringVar(&o.crds, "istio-crds", o.crds, "what to do with Istio's CRDs: IfAbsent, Manage or Never")
	f.StringVar(&o.distributionToken, "distribution-token", o.distributionToken, "file with the token for asking isthmusd how far a configuration has got")
	f.StringVar(&o.metricsAddr, "metrics-addr", o.metricsAddr, "address of the metrics endpoint; 0 turns it off")
	f.StringVar(&o.healthAddr, "health-addr", o.healthAddr, "address of the health endpoint; 0 turns it off")
	f.BoolVar(&o.leaderElection, "leader-election", o.leaderElection, "let one replica work at a time")
	f.IntVar(&o.logLevel, "log-level", 0, "0: changes, 1: decisions, 2: details")
	c.AddCommand(manifests())
	return c
}
