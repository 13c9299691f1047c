// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cell"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/outside"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/wiring"
)

func outsideCommand(w *where) *cobra.Command {
	c := &cobra.Command{Use: "outside", Short: "the hosts beyond the cluster's router"}
	c.AddCommand(outsideLogCommand(w), outsideCACommand(w), outsideHostsCommand())
	return c
}

func outsideHostsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "hosts",
		Short: "list them; the IPv6 addresses are those of dual clusters",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			t := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, h := range outside.Hosts() {
				name := h.DNS
				if h.Wildcard {
					name = "*." + name
				}
				fmt.Fprintf(t, "%s\t%s\t%s\n", h.IPv4, h.IPv6, name)
			}
			return t.Flush() //nolint:wrapcheck // writes to standard output
		},
	}
}

func outsideLogCommand(w *where) *cobra.Command {
	var host, since string
	c := &cobra.Command{
		Use:   "log",
		Short: "print who came to them, one JSON object a line",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := w.running()
			if err != nil {
				return err
			}
			from, err := parseSince(since, time.Now())
			if err != nil {
				return err
			}
			visits, err := outside.Visits(s, host, from)
			if err != nil {
				return err //nolint:wrapcheck // says all
			}
			for _, v := range visits {
				fmt.Fprintln(c.OutOrStdout(), v.Line)
			}
			return nil
		},
	}
	c.Flags().StringVar(&host, "host", "", "only this host: allowed, other or wild")
	c.Flags().StringVar(&since, "since", "", "a time (RFC 3339) or how long ago (30s)")
	return c
}

func parseSince(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return t, fmt.Errorf("--since %s: want a duration or a time as in RFC 3339", s)
	}
	return t, nil
}

func outsideCACommand(w *where) *cobra.Command {
	return &cobra.Command{
		Use:   "ca",
		Short: "print the file with the certificate that theirs are signed by",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := w.running()
			if err == nil {
				fmt.Fprintln(c.OutOrStdout(), outside.CA(s))
			}
			return err
		},
	}
}

func linkCommand(w *where) *cobra.Command {
	return &cobra.Command{
		Use:   "link OTHER",
		Short: "join the networks of two clusters of different indexes, until one of them ends",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			other := *w
			other.name = args[0]
			var ends []wiring.End
			for _, w := range []*where{w, &other} {
				c, err := w.running()
				if err != nil {
					return err
				}
				netns, err := cell.Netns(c, spec.Outside)
				if err != nil {
					return err //nolint:wrapcheck // says all
				}
				ends = append(ends, wiring.End{Cluster: c, Netns: netns})
			}
			return wiring.Join(ends[0], ends[1]) //nolint:wrapcheck // says all
		},
	}
}
