// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Command isthmusctl is the person's tool for an Isthmus mesh; installed as
// kubectl-isthmus it is also a plugin of kubectl. It reads the environment here
// and nowhere below.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-mesh/isthmus/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	root := cli.NewCommand(cli.Tool{
		Streams: cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr},
		Connect: connect,
	})
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "isthmusctl:", err)
		os.Exit(1)
	}
}

// connect follows kubectl: the flag, else KUBECONFIG, else the home directory.
func connect(kubeconfig, context string) (cli.Cluster, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	conf, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		rules, &clientcmd.ConfigOverrides{CurrentContext: context},
	).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("find the cluster: %w", err)
	}
	client, err := dynamic.NewForConfig(conf)
	if err != nil {
		return nil, fmt.Errorf("reach the cluster: %w", err)
	}
	return cli.NewCluster(client), nil
}
