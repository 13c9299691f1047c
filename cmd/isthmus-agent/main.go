// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Command isthmus-agent is the one program in a pod that Isthmus adds beside
// Envoy: it redirects the pod's traffic (intercept), and runs Envoy with keys,
// certificates, health and metrics (proxy). It reads the environment here and
// nowhere below.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	log := logr.FromSlogHandler(slog.NewJSONHandler(os.Stderr, nil))
	err := root(log).ExecuteContext(ctx)
	if err == nil {
		return
	}
	var code exitCode
	if errors.As(err, &code) {
		os.Exit(int(code))
	}
	fmt.Fprintln(os.Stderr, "isthmus-agent:", err)
	os.Exit(1)
}

// exitCode is the code of a program that we ran and whose end is ours.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func root(log logr.Logger) *cobra.Command {
	c := &cobra.Command{
		Use:           "isthmus-agent",
		Short:         "the mesh's part of a pod",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.AddCommand(interceptCommand(log), proxyCommand(log), waitCommand())
	return c
}
