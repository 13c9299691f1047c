// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/binaries"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cluster"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/conformance"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
)

func conformanceCommand(w *where) *cobra.Command {
	var o conformance.Options
	c := &cobra.Command{
		Use:   "conformance SUITE…",
		Short: "try a cluster with Kubernetes' own cases: networkpolicy, networkpolicy-short, dns, services or dualstack",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := w.running()
			if err != nil {
				return err
			}
			suites, err := find(args)
			if err != nil {
				return err
			}
			built, err := w.builtBy(c.Context(), binaries.Suite)
			if err != nil {
				return err
			}
			o.Program, o.Kubectl = filepath.Join(built, binaries.Conformance), s.Binary("kubectl")
			o.Progress = c.OutOrStdout()
			if o.Kubeconfig, err = cluster.Access(s.Dir); err != nil {
				return err //nolint:wrapcheck // says all
			}
			if o.Logs == "" {
				o.Logs = s.Path("logs", "conformance")
			}
			return try(c.Context(), s, suites, filepath.Join(built, binaries.Agnhost), o)
		},
	}
	c.Flags().IntVar(&o.Processes, "processes", 3, "how many cases run at a time")
	c.Flags().StringVar(&o.Logs, "logs", "", "directory for what the suite prints (default below the cluster's logs)")
	return c
}

func find(names []string) ([]conformance.Suite, error) {
	var suites []conformance.Suite
	for _, name := range names {
		s, err := conformance.Find(name)
		if err != nil {
			return nil, err //nolint:wrapcheck // says all
		}
		suites = append(suites, s)
	}
	return suites, nil
}

// try runs the suites one after the other, all of them even if cases fail.
func try(ctx context.Context, c spec.Cluster, suites []conformance.Suite, agnhost string, o conformance.Options) error {
	failed := 0
	for _, s := range suites {
		archive := filepath.Join(o.Logs, s.Name+".tar")
		if err := s.Archive(agnhost, c.Binary("coredns"), archive); err != nil {
			return err //nolint:wrapcheck // says all
		}
		err := cluster.Load(c, []string{archive})
		_ = os.Remove(archive)
		if err != nil {
			return err //nolint:wrapcheck // says all
		}
		f, err := conformance.Run(ctx, s, o)
		if err != nil {
			return err //nolint:wrapcheck // says all
		}
		fmt.Fprintf(o.Progress, "%s: %s\n", s.Name, f)
		failed += f.Failed
	}
	if failed > 0 {
		return fmt.Errorf("%d cases failed", failed)
	}
	return nil
}
