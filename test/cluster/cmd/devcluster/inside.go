// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cell"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/node"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
)

// initCommand and superviseCommand are how the program calls itself inside a cell.
func initCommand() *cobra.Command {
	return inside(cell.InitCommand, func(_ *cobra.Command, c spec.Cluster) error { return cell.Init(c) })
}

func superviseCommand() *cobra.Command {
	return inside(cell.SuperviseCommand, func(cmd *cobra.Command, c spec.Cluster) error {
		return node.Supervise(cmd.Context(), c)
	})
}

func inside(name string, run func(*cobra.Command, spec.Cluster) error) *cobra.Command {
	return &cobra.Command{
		Use:    name + " DIR",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := spec.Load(args[0])
			if err != nil {
				return err //nolint:wrapcheck // says all
			}
			return run(cmd, c)
		},
	}
}
