// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cluster"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/supervise"
)

// defaultName is the cluster whose kubeconfig lies beside its directory, where it
// is easily named.
const defaultName = "kube"

func upCommand(w *where) *cobra.Command {
	var s spec.Cluster
	var access, testapp string
	c := &cobra.Command{
		Use:   "up",
		Short: "bring a cluster up and wait until it is ready",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, access, err := w.complete(s, access, testapp)
			if err != nil {
				return err
			}
			if s.Bin, err = w.built(c.Context()); err != nil {
				return err
			}
			if err := cluster.Up(s, access, c.ErrOrStderr()); err != nil {
				return err //nolint:wrapcheck // says all
			}
			fmt.Fprintf(c.OutOrStdout(), "export KUBECONFIG=%s\n", access)
			return nil
		},
	}
	f := c.Flags()
	f.IntVar(&s.Index, "index", 0, "number that the addresses follow from")
	f.IntVar(&s.APIPort, "port", 6443, "port on 127.0.0.1 for the API server; any other if it is taken")
	f.StringVar(&access, "kubeconfig", "", "where to write the kubeconfig (default DIR/kubeconfig, or DIR/NAME/kubeconfig)")
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
func (w *where) complete(s spec.Cluster, access, testapp string) (spec.Cluster, string, error) {
	var err error
	s.Name = w.name
	if s.Dir, err = w.cluster(); err != nil {
		return s, "", err
	}
	if s.TestApp, err = path(testapp, "bin", "testapp"); err != nil {
		return s, "", err
	}
	for i, p := range s.Images {
		if s.Images[i], err = filepath.Abs(p); err != nil {
			return s, "", fmt.Errorf("resolve %s: %w", p, err)
		}
	}
	switch {
	case access != "":
		access, err = path(access)
	case w.name == defaultName:
		access, err = w.below("kubeconfig")
	default:
		access = s.Path("kubeconfig")
	}
	return s, access, err
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
			if err := cluster.Down(c.Context(), dir); err != nil {
				return err //nolint:wrapcheck // says all
			}
			_ = os.Remove(filepath.Dir(dir)) // goes with its last cluster
			return nil
		},
	}
}

func statusCommand(w *where) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "say how a cluster's programs are; fails if it is not ready",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := w.running()
			if err != nil {
				return err
			}
			state, err := supervise.Read(s.Dir)
			if err != nil {
				return err //nolint:wrapcheck // says all
			}
			return report(c, state)
		},
	}
}

func report(c *cobra.Command, s supervise.State) error {
	t := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PROGRAM\tRUNNING\tRESTARTS\tLAST END")
	for _, p := range s.Programs {
		running := "no"
		if p.PID != 0 {
			running = time.Since(p.Since).Round(time.Second).String()
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\n", p.Name, running, p.Restarts, p.Last)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	if !s.Ready {
		return fmt.Errorf("not ready: %s", s.Failure)
	}
	return nil
}
