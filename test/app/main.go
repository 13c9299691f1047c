// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Command testapp is the other end of every test: a server that says who asked,
// and a client that says what it got. One JSON line per request on both sides.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "testapp:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	c := &cobra.Command{Use: "testapp", SilenceUsage: true, SilenceErrors: true}
	c.AddCommand(serveCommand(), httpCommand(), tcpCommand(), udpCommand(), grpcCommand(), wsCommand(), holdCommand(), pauseCommand())
	return c
}

func pauseCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "pause",
		Short: "wait until SIGTERM",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			<-c.Context().Done()
			return nil
		},
	}
}
