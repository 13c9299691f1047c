// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cell"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/keeper"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/node"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/sweep"
)

// These are how the program calls itself: to keep a cluster, to sweep up after it,
// and inside a cell.

func keepCommand() *cobra.Command {
	return &cobra.Command{
		Use: keeper.Command, Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return keeper.Run(cmd.Context()) },
	}
}

func sweepCommand() *cobra.Command {
	return &cobra.Command{
		Use: sweep.Command + " DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return sweep.Watch(os.Stdin, args[0]) },
	}
}

func initCommand() *cobra.Command {
	return inside(cell.InitCommand, func(_ context.Context, c spec.Cluster, name string) error { return cell.Init(c, name) })
}

func superviseCommand() *cobra.Command {
	return inside(cell.SuperviseCommand, func(ctx context.Context, c spec.Cluster, name string) error {
		if name == spec.Outside {
			return node.SuperviseOutside(ctx, c)
		}
		n, err := c.Machine(name)
		if err != nil {
			return err //nolint:wrapcheck // says all
		}
		return node.Supervise(ctx, n)
	})
}

func inside(name string, run func(context.Context, spec.Cluster, string) error) *cobra.Command {
	return &cobra.Command{
		Use:    name + " DIR CELL",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := spec.Load(args[0])
			if err != nil {
				return err //nolint:wrapcheck // says all
			}
			return run(cmd.Context(), c, args[1])
		},
	}
}
