// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cell"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cluster"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/supervise"
)

func statusCommand(w *where) *cobra.Command {
	var patience time.Duration
	c := &cobra.Command{
		Use:   "status",
		Short: "say how a cluster's programs are; fails unless all run and were ready once",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := w.running()
			if err != nil {
				return err
			}
			var bad []error
			if patience > 0 {
				ctx, cancel := context.WithTimeout(c.Context(), patience)
				defer cancel()
				bad = append(bad, cluster.Await(ctx, s))
			}
			t := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "WHERE\tPROGRAM\tRUNNING\tRESTARTS\tLAST END")
			for _, name := range s.Cells() {
				report(t, s, name)
				if patience == 0 {
					bad = append(bad, cluster.Works(s, name))
				}
			}
			if err := t.Flush(); err != nil {
				return fmt.Errorf("print: %w", err)
			}
			return errors.Join(bad...)
		},
	}
	c.Flags().DurationVar(&patience, "wait", 0, "wait so long until all run, and the API server, DNS and every kubelet answer")
	return c
}

// report prints how a cell is.
func report(t *tabwriter.Writer, c spec.Cluster, name string) {
	if _, err := cell.PID(c, name); err != nil {
		fmt.Fprintf(t, "%s\t-\toff\t\t\n", name)
		return
	}
	s, err := supervise.Read(c.CellPath(name))
	if err != nil {
		fmt.Fprintf(t, "%s\t-\tstarting\t\t\n", name)
		return
	}
	for _, p := range s.Programs {
		running := "no"
		switch {
		case p.PID != 0:
			running = time.Since(p.Since).Round(time.Second).String()
		case p.Held:
			running = "held"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\n", name, p.Name, running, p.Restarts, p.Last)
	}
}
