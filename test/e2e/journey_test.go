// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package e2e makes the journeys that a user makes, in a real cluster with real
// Envoys: one per topology, each an edit of one field of one object.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/isthmus-mesh/isthmus/test/journey"
)

// env is the cluster that all journeys share: topologies follow one another, as
// they do for a user.
var env *journey.Env

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root, err := filepath.Abs("../..")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if os.Geteuid() != 0 && os.Getenv("CLUSTER") == "" {
		fmt.Println("SKIP: the embedded cluster needs root; set CLUSTER=kind or CLUSTER=current for another")
		return 0
	}
	cluster := os.Getenv("CLUSTER")
	if cluster == "" {
		cluster = "embedded"
	}
	e, down, err := journey.Start(ctx, journey.Options{Cluster: cluster, Root: root, Name: "e2e", Index: 3, Progress: func(s string) { fmt.Println("---", s) }})
	defer func() {
		if err := down(); err != nil {
			fmt.Fprintln(os.Stderr, "take down:", err)
		}
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "start:", err)
		return 1
	}
	env = e
	return m.Run()
}

func TestJourneys(t *testing.T) {
	for _, topology := range []string{journey.IngressOnly, journey.SidecarEgress, journey.EgressGateway} {
		t.Run(topology, func(t *testing.T) {
			if err := env.SwitchTo(t.Context(), topology); err != nil {
				t.Fatal(err)
			}
			for _, f := range journey.Flows(topology) {
				t.Run(f.Name, func(t *testing.T) {
					o := f.Probe(t.Context(), env)
					if !o.OK {
						t.Errorf("want %s, got %s (known by: %s)", f.Expect, o.Seen, o.Known)
					}
				})
			}
		})
	}
}
