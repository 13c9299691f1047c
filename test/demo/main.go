// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Command demo walks the three topologies in a real cluster and prints, for
// each, what was expected, what came of it, and how that is known. It ends with
// a code other than 0 if one row differs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/test/journey"
)

func main() {
	cluster := flag.String("cluster", "auto", "auto, embedded, kind or current")
	keep := flag.Bool("keep", false, "leave the cluster up")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *cluster, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

var errDiffers = errors.New("a row differs from what was expected")

func run(ctx context.Context, cluster string, keep bool) (err error) {
	begin := time.Now()
	step := func(s string) { fmt.Printf("%6.1f s  %s\n", time.Since(begin).Seconds(), s) }
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	env, down, err := journey.Start(ctx, journey.Options{Cluster: cluster, Root: root, Progress: step})
	defer func() {
		if keep {
			farewell(cluster)
			return
		}
		step("taking the cluster down")
		err = errors.Join(err, down())
	}()
	if err != nil {
		return err
	}
	differ := 0
	for _, topology := range []string{journey.IngressOnly, journey.SidecarEgress, journey.EgressGateway} {
		step("kubectl patch mt default --type=merge -p '{\"spec\":{\"topology\":\"" + topology + "\"}}'")
		if err := env.SwitchTo(ctx, topology); err != nil {
			return err
		}
		step("Ready: " + topology)
		differ += table(topology, journey.Run(ctx, env, topology))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	step(fmt.Sprintf("done, %d rows differ", differ))
	if differ > 0 {
		return errDiffers
	}
	return nil
}

// table prints the rows and counts those that differ.
func table(topology string, rows []journey.Row) int {
	width := func(pick func(journey.Row) string) int {
		n := 0
		for _, r := range rows {
			n = max(n, len(pick(r)))
		}
		return n
	}
	flow := width(func(r journey.Row) string { return r.Name })
	want := width(func(r journey.Row) string { return r.Expect })
	seen := min(width(func(r journey.Row) string { return r.Seen }), 40)
	fmt.Printf("\n  %s\n     %-*s  %-*s  %-*s  %s\n", topology, flow, "flow", want, "expected", seen, "observed", "known by")
	differ := 0
	for _, r := range rows {
		mark := "ok"
		if !r.OK {
			mark, differ = "NO", differ+1
		}
		fmt.Printf("  %s %-*s  %-*s  %-*s  %s\n", mark, flow, r.Name, want, r.Expect, seen, cut(r.Seen, seen), r.Known)
	}
	fmt.Println()
	return differ
}

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.TrimSpace(s[:n-2]) + ".."
}

func farewell(cluster string) {
	fmt.Print(`
The cluster is up. Next:
`)
	if cluster == "auto" || cluster == "embedded" {
		fmt.Print("  export KUBECONFIG=$PWD/.cluster/kubeconfig\n")
	}
	fmt.Print(`  kubectl get mt                                   # or bin/devcluster kubectl get mt
  kubectl -n shop get pods,serviceentry
  kubectl patch mt default --type=merge -p '{"spec":{"topology":"SidecarEgress"}}'
  bin/devcluster outside log --host allowed        # who came from the cluster
  make cluster-down
`)
}
