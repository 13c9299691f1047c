// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Command bench measures isthmusd under a swarm of fake proxies.
//
//	bench run      one control plane, one mesh, some steps
//	bench figures  all scenarios, into docs/performance
//	bench draw     the drawings anew
//	bench profiles where time and memory go
//	bench compare  Go benchmarks of another commit and of this one, in turn
//	bench inject   pods, at a rate
//	bench ca       certificates, as fast as they come
//	bench agent    a real agent with a real Envoy, at rest and while it rotates
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// command is one of the things that bench does.
type command struct {
	name, what string
	run        func(ctx context.Context, args []string) error
}

var commands = []command{
	{"run", "one control plane, one mesh, some steps: prints what they cost", runSteps},
	{"figures", "all that docs/performance shows: measures, and draws it", runFigures},
	{"draw", "draws what was measured anew", runDraw},
	{"profiles", "where time and memory go", runProfiles},
	{"compare", "benchmarks of two commits, in turn", runCompare},
	{"inject", "the webhook over TLS, so many pods a second", runInject},
	{"ca", "certificates as fast as they come", runCA},
	{"agent", "a real agent with a real Envoy, at rest and while it rotates", runAgent},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends us at once
	if err := dispatch(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) > 0 {
		for _, c := range commands {
			if c.name == args[0] {
				return c.run(ctx, args[1:])
			}
		}
	}
	fmt.Fprintln(os.Stderr, "usage: bench COMMAND [flags]")
	for _, c := range commands {
		fmt.Fprintf(os.Stderr, "  %-10s %s\n", c.name, c.what)
	}
	return errors.New("no such command")
}
