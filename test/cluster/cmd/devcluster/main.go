// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Command devcluster brings up a real Kubernetes on a Linux machine without a
// container engine, from binaries that it builds itself.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cell"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	err := root().ExecuteContext(ctx)
	if code, ok := cell.ExitCode(err); ok {
		os.Exit(code)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "devcluster:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:           "devcluster",
		Short:         "a real Kubernetes on this machine",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	w := newWhere(c.PersistentFlags())
	c.AddCommand(
		upCommand(w), downCommand(w), statusCommand(w), killCommand(w), startCommand(w), snapshotCommand(w), restoreCommand(w),
		binariesCommand(w), assetsCommand(w), kubectlCommand(w),
		execCommand(w), logsCommand(w), loadCommand(w), buildCommand(), outsideCommand(w), linkCommand(w),
		conformanceCommand(w),
		keepCommand(), sweepCommand(), initCommand(), superviseCommand(),
	)
	c.AddCommand(etcdCommands()...)
	return c
}
