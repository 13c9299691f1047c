// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Command isthmusd is the mesh's control plane: discovery for proxies, the
// certificate authority, and the admission webhooks. It serves from a Kubernetes
// API server or from a directory of YAML.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd"
	"github.com/isthmus-mesh/isthmus/internal/version"
)

// collectAt is the share of garbage, in percent of what is alive, at which Go
// collects it, unless GOGC says otherwise. Most garbage here is what a thousand
// proxies that connect at once leave within seconds; Go's own 100 would let that
// double the memory which isthmusd must be given, and a collection is cheap
// because proxies share what is alive.
const collectAt = 50

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectAt)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	klog.SetSlogLogger(log.With("part", "client-go"))
	if err := command(log).ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "isthmusd:", err)
		os.Exit(1)
	}
}

// flags are what the command line says.
type flags struct {
	isthmusd.Config
	kubeconfig string
}

func command(log *slog.Logger) *cobra.Command {
	f := &flags{Config: isthmusd.Config{Log: log}}
	c := &cobra.Command{
		Use:   "isthmusd",
		Short: "the mesh's control plane",
		Long: "isthmusd serves proxies their configuration and certificates, and answers the API\n" +
			"server's admission requests. It serves from Kubernetes, or from a directory of YAML.",
		Version:       version.Current,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.complete(c); err != nil {
				return err
			}
			d, err := isthmusd.New(c.Context(), f.Config)
			if err != nil {
				return err
			}
			return d.Run(c.Context())
		},
	}
	f.add(c)
	return c
}

func (f *flags) add(c *cobra.Command) {
	s, a, t := c.Flags(), &f.Addresses, &f.Topology
	s.StringVar(&f.ConfigDir, "config-dir", "", "serve from this directory of YAML, not from Kubernetes")
	s.StringVar(&f.kubeconfig, "kubeconfig", "", "connect to Kubernetes with this file; empty means in-cluster")
	s.StringVar(&t.Name, "topology", "default", "name of the MeshTopology")
	s.StringVar(&t.Namespace, "namespace", "isthmus-system", "namespace of the control plane")
	s.StringVar(&t.Revision, "revision", "", "revision that injected pods record")
	s.StringVar(&t.TrustDomain, "trust-domain", "cluster.local", "trust domain of identities")
	s.StringVar(&t.ClusterDomain, "cluster-domain", "cluster.local", "DNS suffix of Services")
	s.StringVar(&a.GRPC, "grpc-addr", "127.0.0.1:15010", "plaintext discovery; loopback only, empty for none")
	s.StringVar(&a.SecureGRPC, "secure-grpc-addr", ":15012", "discovery and certificates over TLS (with --config-dir: needs --ca-dir)")
	s.StringVar(&a.Webhook, "webhook-addr", ":15017", "admission webhooks (with --config-dir: none unless given)")
	s.StringVar(&a.HTTP, "http-addr", ":8080", "readiness and metrics, and debugging from this machine")
	s.StringVar(&a.Monitoring, "monitoring-addr", ":15014", "readiness and metrics (with --config-dir: none unless given)")
	s.StringVar(&a.Distribution, "distribution-addr", ":15016", "how far a configuration has got, for the operator, over TLS (not with --config-dir)")
	s.StringVar(&f.Operator, "operator", "system:serviceaccount:isthmus-operator:isthmus-operator", "account of the operator")
	s.StringVar(&f.CADir, "ca-dir", "", "with --config-dir: directory of the CA's key and certificate, made if absent")
	s.StringVar(&f.TokenKey, "token-key", "", "with --config-dir: file with the public key (PEM, P-256) of callers' tokens")
}

// complete turns flags into a Config. A directory is served without what needs a
// cluster, unless asked for.
func (f *flags) complete(c *cobra.Command) error {
	if f.ConfigDir != "" {
		if f.kubeconfig != "" {
			return fmt.Errorf("--config-dir and --kubeconfig exclude each other")
		}
		for name, addr := range map[string]*string{
			"webhook-addr": &f.Addresses.Webhook, "monitoring-addr": &f.Addresses.Monitoring,
			"distribution-addr": &f.Addresses.Distribution,
		} {
			if !c.Flags().Changed(name) {
				*addr = ""
			}
		}
		return nil
	}
	if f.CADir != "" || f.TokenKey != "" {
		return fmt.Errorf("--ca-dir and --token-key go with --config-dir; in Kubernetes the CA is a Secret and the API server reviews tokens")
	}
	var err error
	if f.Kubernetes, err = connection(f.kubeconfig); err != nil {
		return fmt.Errorf("find Kubernetes (give --config-dir to serve without): %w", err)
	}
	// A mesh has many kinds and few calls: the client's defaults would only queue
	// token reviews.
	f.Kubernetes.QPS, f.Kubernetes.Burst = 100, 200
	f.Kubernetes.UserAgent = "isthmusd/" + version.Current
	return nil
}

func connection(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		return rest.InClusterConfig()
	}
	return clientcmd.BuildConfigFromFlags("", kubeconfig)
}
