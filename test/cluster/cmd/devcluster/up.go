// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cluster"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/keeper"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
)

// defaultName is the cluster whose kubeconfig lies beside its directory, where it
// is easily named.
const defaultName = "kube"

func upCommand(w *where) *cobra.Command {
	var o keeper.Order
	var testapp string
	s := &o.Cluster
	c := &cobra.Command{
		Use:   "up",
		Short: "bring a cluster up and wait until it is ready",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := w.complete(&o, testapp); err != nil {
				return err
			}
			var err error
			if s.Bin, err = w.built(c.Context()); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "export KUBECONFIG=%s\n", o.Access)
			return cluster.Up(c.Context(), o, c.ErrOrStderr()) //nolint:wrapcheck // says all
		},
	}
	f := c.Flags()
	f.IntVar(&s.Index, "index", 0, "number that the addresses follow from")
	f.IntVar(&s.Nodes, "nodes", 1, "how many nodes; the first has the control plane")
	f.BoolVar(&o.Foreground, "foreground", false, "stay until interrupted, and take the cluster down then")
	f.StringVar(&s.IPFamily, "ip-family", spec.IPv4, "addresses of nodes, pods, Services and the outside: ipv4 or dual")
	f.IntVar(&s.APIPort, "port", 6443, "port on 127.0.0.1 for the API server; any other if it is taken")
	f.StringVar(&o.Access, "kubeconfig", "", "where to write the kubeconfig (default DIR/kubeconfig, or DIR/NAME/kubeconfig)")
	f.StringSliceVar(&s.Images, "image", nil, "image archives to import while the cluster starts")
	f.StringVar(&testapp, "testapp", "", "test application that plays the outside (default REPOSITORY/bin/testapp)")
	f.BoolVar(&s.Audit, "audit", false, "write every request to the API server to logs/audit.jsonl")
	f.BoolVar(&s.Policy.Disabled, "np-off", false, "do not enforce NetworkPolicies")
	f.StringVar(&s.Policy.Deny, "np-deny", "reject", "what a NetworkPolicy does to traffic: reject, which is noticed at once, or drop")
	f.StringVar(&s.Policy.Established, "np-established", "cut", "connections that a new NetworkPolicy forbids: cut or keep")
	f.StringVar(&s.Policy.Blocks, "np-blocks", "any", "whether an ipBlock that covers the node's address means it: any or not-node")
	f.StringVar(&s.Policy.Translation, "np-translation", "after", "when an egress ipBlock is compared: after or before a Service's address is translated")
	f.DurationVar(&s.Policy.Window, "np-window", 0, "how long a new pod stays unfiltered")
	return c
}

// complete fills in what follows from where the command is called.
func (w *where) complete(o *keeper.Order, testapp string) error {
	s := &o.Cluster
	var err error
	s.Name = w.name
	if s.Dir, err = w.cluster(); err != nil {
		return err
	}
	if s.TestApp, err = path(testapp, "bin", "testapp"); err != nil {
		return err
	}
	for i, p := range s.Images {
		if s.Images[i], err = filepath.Abs(p); err != nil {
			return fmt.Errorf("resolve %s: %w", p, err)
		}
	}
	switch {
	case o.Access != "":
		o.Access, err = path(o.Access)
	case w.name == defaultName:
		o.Access, err = w.below("kubeconfig")
	default:
		o.Access = s.Path("kubeconfig")
	}
	return err
}

func downCommand(w *where) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "end a cluster and remove everything of it",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := w.cluster()
			if err != nil {
				return err
			}
			return cluster.Down(c.Context(), dir) //nolint:wrapcheck // says all
		},
	}
}
