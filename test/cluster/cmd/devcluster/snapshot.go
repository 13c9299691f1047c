// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cluster"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/etcd"
)

// restoreTime is what a cluster may take to work again.
const restoreTime = 5 * time.Minute

func snapshotCommand(w *where) *cobra.Command {
	return &cobra.Command{
		Use:   "snapshot FILE",
		Short: "write what etcd holds to a file",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := w.running()
			if err != nil {
				return err
			}
			return cluster.Snapshot(s, args[0]) //nolint:wrapcheck // says all
		},
	}
}

func restoreCommand(w *where) *cobra.Command {
	return &cobra.Command{
		Use:   "restore FILE",
		Short: "make etcd hold what a snapshot says, and wait until the cluster works again",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := w.running()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), restoreTime)
			defer cancel()
			return cluster.Restore(ctx, s, args[0]) //nolint:wrapcheck // says all
		},
	}
}

// etcdCommands are how the program calls itself where etcd listens.
func etcdCommands() []*cobra.Command {
	command := func(name string, run func(context.Context, clientv3.KV) error) *cobra.Command {
		return &cobra.Command{
			Use: name, Hidden: true, Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				client, err := etcd.Connect()
				if err != nil {
					return err //nolint:wrapcheck // says all
				}
				defer client.Close()
				ctx, cancel := context.WithTimeout(c.Context(), time.Minute)
				defer cancel()
				return run(ctx, client)
			},
		}
	}
	return []*cobra.Command{
		command(cluster.SaveCommand, func(ctx context.Context, c clientv3.KV) error { return etcd.Save(ctx, c, os.Stdout) }),
		command(cluster.LoadCommand, func(ctx context.Context, c clientv3.KV) error { return etcd.Load(ctx, c, os.Stdin) }),
	}
}
