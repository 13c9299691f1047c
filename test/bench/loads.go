// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"time"

	"github.com/isthmus-mesh/isthmus/test/bench/lab"
	"github.com/isthmus-mesh/isthmus/test/bench/load"
	"github.com/isthmus-mesh/isthmus/test/bench/measure"
	"github.com/isthmus-mesh/isthmus/test/bench/mesh"
)

// show prints a result.
func show(v any) error {
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", " ")
	return enc.Encode(v)
}

// pods is a mesh of Services with Pods.
func pods(services int) *mesh.Shape {
	return &mesh.Shape{Services: services, Endpoints: 10, Namespaces: min(20, services), Kind: mesh.Kubernetes}
}

// withLab runs f with a control plane over a mesh of pods. Flags that f needs are
// added to fs before.
func withLab(ctx context.Context, fs *flag.FlagSet, args []string, f func(*lab.Lab) error) error {
	var o lab.Options
	services := fs.Int("services", 100, "services of the mesh")
	fs.StringVar(&o.Program, "isthmusd", "bin/isthmusd", "the control plane")
	fs.StringVar(&o.Dir, "dir", "", "directory for logs; a temporary one unless given")
	if err := fs.Parse(args); err != nil {
		return err
	}
	o.Shape, o.Args = pods(*services), fs.Args()
	return inLab(ctx, o, f)
}

// inLab is withLab without a command line.
func inLab(ctx context.Context, o lab.Options, f func(*lab.Lab) error) error {
	if o.Dir == "" {
		dir, remove, err := temporary()
		if err != nil {
			return err
		}
		defer remove()
		o.Dir = dir
	}
	l, err := lab.New(o)
	if err != nil {
		return err
	}
	defer l.Close()
	if _, err := l.Run(ctx); err != nil {
		return err
	}
	return f(l)
}

func runInject(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("inject", flag.ContinueOnError)
	rate := fs.Float64("rate", 200, "pods a second")
	during := fs.Duration("time", 10*time.Second, "how long")
	return withLab(ctx, fs, args, func(l *lab.Lab) error {
		r, err := measure.Inject(ctx, l, *rate, *during)
		if err != nil {
			return err
		}
		return show(r)
	})
}

func runCA(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("ca", flag.ContinueOnError)
	n := fs.Int("n", 5000, "certificates")
	by := fs.String("by", string(load.ByCertificate), "how the caller proves who it is: certificate or token")
	return withLab(ctx, fs, args, func(l *lab.Lab) error {
		r, err := measure.Issue(ctx, l, load.Proof(*by), *n)
		if err != nil {
			return err
		}
		return show(r)
	})
}

func runAgent(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("agent", flag.ContinueOnError)
	var p lab.AgentPrograms
	fs.StringVar(&p.Agent, "agent", "bin/isthmus-agent", "the agent")
	fs.StringVar(&p.Envoy, "envoy", "bin/envoy", "its Envoy")
	rest := fs.Duration("time", 20*time.Second, "how long it is idle")
	rotations := fs.Int("rotations", 0, "certificates to rotate, about one a second")
	return withLab(ctx, fs, args, func(l *lab.Lab) error {
		out, err := idleAndSoak(ctx, l, p, *rest, *rotations)
		if err != nil {
			return err
		}
		return show(out)
	})
}

// idleAndSoak measures an agent at rest, then while it rotates, in tenths.
func idleAndSoak(ctx context.Context, l *lab.Lab, p lab.AgentPrograms, rest time.Duration, rotations int) ([]*measure.AtRest, error) {
	v := pods(100).Service(0)
	var env []string
	if rotations > 0 {
		env = append(env, "SECRET_TTL=2s")
	}
	a, err := l.RunAgent(ctx, p, v, env...)
	if err != nil {
		return nil, err
	}
	defer a.Stop()
	first, err := measure.Rest(a, rest)
	if err != nil {
		return nil, err
	}
	out := []*measure.AtRest{first}
	for done := 0; done < rotations; {
		r, err := measure.Soak(ctx, l, a, max(1, rotations/10))
		if err != nil {
			return nil, err
		}
		done += r.Rotations
		r.Rotations = done
		out = append(out, r)
	}
	return out, nil
}
