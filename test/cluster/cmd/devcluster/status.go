// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cell"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/supervise"
)

func statusCommand(w *where) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "say how a cluster's programs are; fails unless all run and were ready once",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := w.running()
			if err != nil {
				return err
			}
			t := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "WHERE\tPROGRAM\tRUNNING\tRESTARTS\tLAST END")
			var bad []error
			for _, name := range s.Cells() {
				bad = append(bad, report(t, s, name))
			}
			if err := t.Flush(); err != nil {
				return fmt.Errorf("print: %w", err)
			}
			return errors.Join(bad...)
		},
	}
}

// report prints how a cell is and returns what is wrong with it.
func report(t *tabwriter.Writer, c spec.Cluster, name string) error {
	if _, err := cell.PID(c, name); err != nil {
		fmt.Fprintf(t, "%s\t-\toff\t\t\n", name)
		return fmt.Errorf("%s is off", name)
	}
	s, err := supervise.Read(c.CellPath(name))
	if err != nil {
		return fmt.Errorf("%s is starting: %w", name, err)
	}
	var bad []error
	for _, p := range s.Programs {
		running := "no"
		switch {
		case p.PID != 0:
			running = time.Since(p.Since).Round(time.Second).String()
		case p.Held:
			running = "held"
		}
		if p.PID == 0 {
			bad = append(bad, fmt.Errorf("%s on %s does not run", p.Name, name))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\n", name, p.Name, running, p.Restarts, p.Last)
	}
	if s.Failure != "" {
		bad = append(bad, fmt.Errorf("%s was never ready: %s", name, s.Failure))
	} else if !s.Ready {
		bad = append(bad, fmt.Errorf("%s is not ready yet", name))
	}
	return errors.Join(bad...)
}
