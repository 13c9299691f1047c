// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/isthmus-mesh/isthmus/test/bench/lab"
	"github.com/isthmus-mesh/isthmus/test/bench/load"
	"github.com/isthmus-mesh/isthmus/test/bench/measure"
	"github.com/isthmus-mesh/isthmus/test/bench/mesh"
	"github.com/isthmus-mesh/isthmus/test/bench/swarm"
)

// size is how large scenarios are.
type size struct {
	// services of the usual mesh, and of one that is ten times smaller or larger.
	services, fewer, more int
	// few, some and many proxies; most is as many as there is memory for, storm as
	// many as connect anew at once.
	few, some, many, most, storm int
	// churn is how long endpoints churn, loads how long pods and certificates come.
	churn, loads time.Duration
	// calm ends a step, rest is how long memory gets to be given back.
	calm, rest        time.Duration
	repeat, rotations int
}

var full = size{
	services: 1000, fewer: 100, more: 10_000, few: 100, some: 500, many: 1000, most: 5000, storm: 2000,
	churn: 30 * time.Second, loads: 20 * time.Second, calm: 1500 * time.Millisecond, rest: 10 * time.Second, repeat: 3, rotations: 1000,
}

var small = size{
	services: 100, fewer: 20, more: 400, few: 20, some: 50, many: 100, most: 200, storm: 200,
	churn: 2 * time.Second, loads: 2 * time.Second, calm: 200 * time.Millisecond, rest: time.Second, repeat: 2, rotations: 2,
}

// bench is where scenarios run.
type bench struct {
	size
	programs lab.AgentPrograms
	isthmusd string
	// dir is for what is needed while they run, out for what comes of them.
	dir, out string
	// scale names the size.
	scale string
}

// newBench makes one, with the flags that commands of scenarios share.
func newBench(command string) (*flag.FlagSet, *bench) {
	fs := flag.NewFlagSet(command, flag.ContinueOnError)
	b := &bench{size: full}
	fs.StringVar(&b.isthmusd, "isthmusd", "bin/isthmusd", "the control plane")
	fs.StringVar(&b.out, "out", "docs/performance", "where results and drawings go")
	fs.StringVar(&b.scale, "size", "full", "full or small")
	return fs, b
}

// begin makes it ready once the flags are read; end cleans up.
func (b *bench) begin() (end func(), err error) {
	if b.scale == "small" {
		b.size = small
	}
	if err := b.absolute(); err != nil {
		return nil, err
	}
	b.dir, end, err = temporary()
	return end, err
}

// temporary makes a directory, which remove takes away with all in it.
func temporary() (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp("", "bench-")
	return dir, func() { _ = os.RemoveAll(dir) }, err
}

// scenario is one run of a control plane.
type scenario struct {
	name string
	run  func(context.Context, *bench) (*result, error)
}

// scenarios in the order in which they run.
func scenarios() []scenario {
	return []scenario{
		{"few", func(ctx context.Context, b *bench) (*result, error) { return b.changes(ctx, b.few, swarm.Delta) }},
		{"some", func(ctx context.Context, b *bench) (*result, error) { return b.changes(ctx, b.some, swarm.Delta) }},
		{"many", many},
		{"few-vhds", func(ctx context.Context, b *bench) (*result, error) { return b.changes(ctx, b.few, swarm.Own) }},
		{"many-vhds", func(ctx context.Context, b *bench) (*result, error) { return b.changes(ctx, b.many, swarm.Own) }},
		{"few-sotw", func(ctx context.Context, b *bench) (*result, error) { return b.changes(ctx, b.few, swarm.World) }},
		{"scoped", scoped},
		{"fewer-services", func(ctx context.Context, b *bench) (*result, error) { return b.growth(ctx, b.fewer) }},
		{"usual-services", func(ctx context.Context, b *bench) (*result, error) { return b.growth(ctx, b.services) }},
		{"more-services", func(ctx context.Context, b *bench) (*result, error) { return b.growth(ctx, b.more) }},
		{"most", most},
		{"start", func(ctx context.Context, b *bench) (*result, error) { return b.start(ctx, mesh.Entries) }},
		{"start-k8s", func(ctx context.Context, b *bench) (*result, error) { return b.start(ctx, mesh.Kubernetes) }},
		{"rough", rough},
		{"storm", storm},
		{"loads", loads},
		{"agent", agent},
		{"modes", modes},
	}
}

// session opens a mesh and connects proxies. What f does comes after.
func (b *bench) session(ctx context.Context, shape *mesh.Shape, n int, p swarm.Protocol, f func(*measure.Session, *result) error) (*result, error) {
	dir, err := os.MkdirTemp(b.dir, "session-")
	if err != nil {
		return nil, err
	}
	o := measure.Options{Protocol: p, Limit: 3 * time.Minute, Calm: b.calm, Repeat: b.repeat}
	o.Program, o.Shape, o.Dir = b.isthmusd, shape, dir
	s, first, err := measure.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	out := &result{Shape: shape, Proxies: n, Protocol: p, Steps: []*measure.Step{first}}
	if n > 0 {
		connect, err := s.Connect("connect", n, 0)
		if err != nil {
			return nil, err
		}
		out.Steps = append(out.Steps, connect)
	}
	return out, f(s, out)
}

// take takes steps until one fails.
func (r *result) take(steps ...func() (*measure.Step, error)) error {
	for _, f := range steps {
		s, err := f()
		if err != nil {
			return err
		}
		r.Steps = append(r.Steps, s)
	}
	return nil
}

func (b *bench) usual() *mesh.Shape {
	return &mesh.Shape{Services: b.services, Endpoints: 10, Namespaces: 20, Kind: mesh.Entries}
}

func churning(s *measure.Session, rate float64, d time.Duration) func() (*measure.Step, error) {
	return func() (*measure.Step, error) { return s.Churn(rate, d) }
}

func (b *bench) resting(s *measure.Session, name string) func() (*measure.Step, error) {
	return func() (*measure.Step, error) {
		step, err := s.Idle(b.rest)
		if err == nil {
			step.Name = name
		}
		return step, err
	}
}

// changes is proxies that connect, each single change, and churn.
func (b *bench) changes(ctx context.Context, n int, p swarm.Protocol) (*result, error) {
	return b.session(ctx, b.usual(), n, p, func(s *measure.Session, r *result) error {
		return r.take(s.Endpoint, s.Route, s.Cluster, s.NewService, churning(s, 10, b.churn))
	})
}

// many is changes, more churn, a restart, and as many proxies again.
func many(ctx context.Context, b *bench) (*result, error) {
	return b.session(ctx, b.usual(), b.many, swarm.Delta, func(s *measure.Session, r *result) error {
		err := r.take(s.Endpoint, s.Route, s.Cluster, s.NewService, churning(s, 10, b.churn), churning(s, 200, b.churn/3),
			func() (*measure.Step, error) { return s.Restart(ctx) }, b.resting(s, "idle"))
		if err != nil {
			return err
		}
		return r.take(func() (*measure.Step, error) { return s.Connect("more", b.many, measure.KnownClass) },
			b.resting(s, "idle with more"))
	})
}

func scoped(ctx context.Context, b *bench) (*result, error) {
	shape := b.usual()
	shape.Scoped = true
	return b.session(ctx, shape, b.many, swarm.Delta, func(s *measure.Session, r *result) error {
		return r.take(s.Endpoint, s.Route, s.Cluster, s.NewService, churning(s, 10, b.churn))
	})
}

// growing is how many proxies there are while the mesh grows: few, for what they
// read grows with it.
const growing = 20

func (b *bench) growth(ctx context.Context, services int) (*result, error) {
	shape := b.usual()
	shape.Services = services
	return b.session(ctx, shape, growing, swarm.Delta, func(s *measure.Session, r *result) error {
		return r.take(s.Endpoint, s.Cluster, s.Route, s.NewService)
	})
}

func most(ctx context.Context, b *bench) (*result, error) {
	return b.session(ctx, b.usual(), b.most, swarm.Delta, func(s *measure.Session, r *result) error {
		return r.take(s.Endpoint, s.Route, b.resting(s, "idle"))
	})
}

// start is only that: the mesh is large, and nobody connects.
func (b *bench) start(ctx context.Context, k mesh.Kind) (*result, error) {
	shape := b.usual()
	shape.Services, shape.Kind = b.more, k
	return b.session(ctx, shape, 0, swarm.Delta, func(*measure.Session, *result) error { return nil })
}

// rough is good proxies alone, then beside bad ones.
func rough(ctx context.Context, b *bench) (*result, error) {
	return b.session(ctx, b.usual(), b.some, swarm.Delta, func(s *measure.Session, r *result) error {
		if err := r.take(s.Endpoint, s.Route); err != nil {
			return err
		}
		c, err := s.Rough(b.some / 25)
		if err != nil {
			return err
		}
		beside := func(f func() (*measure.Step, error)) func() (*measure.Step, error) {
			return func() (*measure.Step, error) {
				step, err := f()
				if err == nil {
					step.Name += " beside bad ones"
				}
				return step, err
			}
		}
		if err := r.take(beside(s.Endpoint), beside(s.Route)); err != nil {
			return err
		}
		r.Recovery, err = s.Recover(c, 20)
		return err
	})
}

func storm(ctx context.Context, b *bench) (*result, error) {
	return b.session(ctx, b.usual(), b.storm, swarm.Delta, func(s *measure.Session, r *result) error {
		return r.take(s.Storm)
	})
}

// loads is pods and certificates.
func loads(ctx context.Context, b *bench) (*result, error) {
	out := &result{Shape: pods(100)}
	dir, err := os.MkdirTemp(b.dir, "loads-")
	if err != nil {
		return nil, err
	}
	return out, inLab(ctx, lab.Options{Program: b.isthmusd, Shape: out.Shape, Dir: dir}, func(l *lab.Lab) error {
		inject, err := measure.Inject(ctx, l, 200, b.loads)
		if err != nil {
			return err
		}
		issue, err := measure.Issue(ctx, l, load.ByCertificate, int(500*b.loads.Seconds()))
		if err != nil {
			return err
		}
		out.Loads = []*measure.Load{inject, issue}
		return nil
	})
}

// agent is a real one with a real Envoy, in a mesh like the others.
func agent(ctx context.Context, b *bench) (*result, error) {
	out := &result{Shape: pods(100)}
	dir, err := os.MkdirTemp(b.dir, "agent-")
	if err != nil {
		return nil, err
	}
	return out, inLab(ctx, lab.Options{Program: b.isthmusd, Shape: out.Shape, Dir: dir}, func(l *lab.Lab) error {
		var err error
		if out.AtRest, err = idleAndSoak(ctx, l, b.programs, 2*b.rest, 0); err != nil {
			return fmt.Errorf("at rest: %w", err)
		}
		soak, err := idleAndSoak(ctx, l, b.programs, time.Second, b.rotations)
		if err != nil {
			return fmt.Errorf("while it rotates: %w", err)
		}
		out.AtRest = append(out.AtRest, soak[1:]...)
		return nil
	})
}

// tiny is a mesh so small that an Envoy shows nothing of it.
const tiny = 10

// modes is real sidecars in a tiny mesh and in the usual one, of either mode of
// discovery.
func modes(ctx context.Context, b *bench) (*result, error) {
	out := &result{Shape: pods(b.services)}
	for _, n := range []int{tiny, b.services} {
		dir, err := os.MkdirTemp(b.dir, "modes-")
		if err != nil {
			return nil, err
		}
		err = inLab(ctx, lab.Options{Program: b.isthmusd, Shape: pods(n), Dir: dir}, func(l *lab.Lab) error {
			for _, mode := range []string{"Full", "OnDemand"} {
				a, err := l.RunAgent(ctx, b.programs, pods(n).Service(0), "ISTIO_META_ISTHMUS_DISCOVERY="+mode)
				if err != nil {
					return err
				}
				r, err := measure.Rest(a, b.rest)
				a.Stop()
				if err != nil {
					return err
				}
				r.Services, r.Discovery = n, mode
				out.AtRest = append(out.AtRest, r)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("%d services: %w", n, err)
		}
	}
	return out, nil
}

// absolute makes the programs' paths good in any directory.
func (b *bench) absolute() error {
	for _, p := range []*string{&b.isthmusd, &b.programs.Agent, &b.programs.Envoy} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	return nil
}
