// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/test/bench/measure"
	"github.com/isthmus-mesh/isthmus/test/bench/mesh"
	"github.com/isthmus-mesh/isthmus/test/bench/swarm"
)

// runSteps is the command "run".
func runSteps(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("run", flag.ContinueOnError)
	shape := &mesh.Shape{}
	o := measure.Options{}
	o.Shape = shape
	fs.IntVar(&shape.Services, "services", 100, "services of the mesh")
	fs.IntVar(&shape.Endpoints, "endpoints", 10, "endpoints of each service")
	fs.IntVar(&shape.Namespaces, "namespaces", 20, "namespaces that hold the services")
	fs.StringVar((*string)(&shape.Kind), "kind", string(mesh.Entries), "se (ServiceEntries) or k8s (Services, EndpointSlices, Pods)")
	fs.BoolVar(&shape.Scoped, "sidecar", false, "a Sidecar with egress to itself in each namespace")
	fs.StringVar(&o.Program, "isthmusd", "bin/isthmusd", "the program to measure")
	fs.IntVar(&o.Proxies, "n", 100, "proxies")
	fs.StringVar((*string)(&o.Protocol), "protocol", string(swarm.Delta), "delta, sotw, or vhds")
	fs.IntVar(&o.Repeat, "repeat", 3, "how often each single change is made")
	fs.DurationVar(&o.Calm, "calm", time.Second, "a step is over when nothing came for this long")
	fs.DurationVar(&o.Limit, "limit", 5*time.Minute, "the longest wait")
	steps := fs.String("steps", "endpoint,route,cluster,newservice",
		"comma separated: endpoint route cluster newservice churn:RATE:SECONDS restart storm more:PROXIES idle:SECONDS heap:FILE")
	fs.StringVar(&o.Dir, "dir", "", "directory for logs and profiles; a temporary one unless given")
	if err := fs.Parse(args); err != nil {
		return err
	}
	o.Args = fs.Args()
	if o.Dir == "" {
		dir, remove, err := temporary()
		if err != nil {
			return err
		}
		defer remove()
		o.Dir = dir
	}
	out, err := steer(ctx, o, strings.Split(*steps, ","))
	if out != nil {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", " ")
		if err := enc.Encode(out); err != nil {
			return err
		}
	}
	return err
}

// report is what the command prints.
type report struct {
	Shape    *mesh.Shape     `json:"shape"`
	Proxies  int             `json:"proxies"`
	Protocol swarm.Protocol  `json:"protocol"`
	Steps    []*measure.Step `json:"steps"`
}

// steer takes the steps one by one; what is known when one fails is returned too.
func steer(ctx context.Context, o measure.Options, steps []string) (*report, error) {
	s, first, err := measure.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	out := &report{Shape: o.Shape, Proxies: o.Proxies, Protocol: o.Protocol, Steps: []*measure.Step{first}}
	connect, err := s.Connect("connect", o.Proxies, 0)
	if err != nil {
		return out, err
	}
	out.Steps = append(out.Steps, connect)
	for _, name := range steps {
		if name == "" || ctx.Err() != nil {
			continue
		}
		step, err := take(ctx, s, name)
		if err != nil {
			return out, err
		}
		if step != nil {
			out.Steps = append(out.Steps, step)
		}
	}
	return out, ctx.Err()
}

// take takes one step; it's nil if it measures nothing.
func take(ctx context.Context, s *measure.Session, name string) (*measure.Step, error) {
	part := strings.SplitN(name, ":", 3)
	number := func(i int) float64 {
		if i >= len(part) {
			return 0
		}
		v, _ := strconv.ParseFloat(part[i], 64) // what is no number is none
		return v
	}
	seconds := func(v float64) time.Duration { return time.Duration(v * float64(time.Second)) }
	switch part[0] {
	case "endpoint":
		return s.Endpoint()
	case "route":
		return s.Route()
	case "cluster":
		return s.Cluster()
	case "newservice":
		return s.NewService()
	case "restart":
		return s.Restart(ctx)
	case "storm":
		return s.Storm()
	case "churn":
		if number(1) <= 0 || number(2) <= 0 {
			return nil, fmt.Errorf("step %q: want churn:RATE:SECONDS", name)
		}
		return s.Churn(number(1), seconds(number(2)))
	case "more":
		return s.Connect("more", int(number(1)), measure.KnownClass)
	case "idle":
		return s.Idle(seconds(number(1)))
	case "heap":
		return nil, s.Lab.Profile(ctx, "heap?gc=1", name[len("heap:"):])
	}
	return nil, fmt.Errorf("there is no step %q", name)
}
