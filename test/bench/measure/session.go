// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package measure puts a swarm of proxies on a control plane, makes changes to the
// mesh, and says what they cost: time to the last acknowledgement, bytes, CPU and
// memory. What comes out wrong or not at all is an error; what comes late is a
// figure.
package measure

import (
	"context"
	"fmt"
	"math"
	"sort"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/test/bench/lab"
	"github.com/isthmus-mesh/isthmus/test/bench/mesh"
	"github.com/isthmus-mesh/isthmus/test/bench/swarm"
)

// Options of a Session.
type Options struct {
	lab.Options
	// Proxies that connect at first, and how they ask.
	Proxies  int
	Protocol swarm.Protocol
	// Limit is the longest wait for anything.
	Limit time.Duration
	// Calm is how long nothing must have come for a step to be over.
	Calm time.Duration
	// Repeat is how often a single change is made.
	Repeat int
}

// Session is a control plane with a mesh and proxies. Its steps come one after
// the other.
type Session struct {
	o       Options
	Lab     *lab.Lab
	Swarm   *swarm.Swarm
	Proxies []*swarm.Proxy
	// number of changes until now.
	changes int
}

// Step is what one step cost. Seconds and bytes are of the whole step.
type Step struct {
	Name string `json:"name"`
	// Changes that were made, and the seconds from each to each proxy's
	// acknowledgement, or of each proxy to its full configuration.
	Changes int           `json:"changes,omitempty"`
	Seconds *Distribution `json:"seconds,omitempty"`
	// CPU seconds of the control plane (for each change, if there were changes), and
	// of swarm and API server.
	CPU      float64 `json:"cpu_s"`
	SwarmCPU float64 `json:"swarm_cpu_s"`
	// Wall is the seconds until all was seen.
	Wall float64 `json:"wall_s"`
	// After is what the control plane takes when it's over.
	After lab.Use `json:"after"`
	// Pushed is what came, by type.
	Pushed map[string]swarm.Traffic `json:"pushed,omitempty"`
	// Seen is the share of the changes that was seen; the others were overtaken by
	// newer ones.
	Seen float64 `json:"seen,omitempty"`
	// Refused streams.
	Refused int64 `json:"refused,omitempty"`
}

// Distribution of a measured value.
type Distribution struct {
	N   int     `json:"n"`
	Min float64 `json:"min"`
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Distribute sorts values.
func Distribute(v []float64) *Distribution {
	if len(v) == 0 {
		return nil
	}
	sort.Float64s(v)
	q := func(p float64) float64 { return round(v[min(len(v)-1, int(p*float64(len(v))))]) }
	return &Distribution{N: len(v), Min: q(0), P50: q(.5), P90: q(.9), P99: q(.99), Max: q(1)}
}

// round keeps what a measurement can know.
func round(f float64) float64 { return math.Round(f*1e4) / 1e4 }

// Open makes a mesh, starts the control plane and says how long it took to be
// ready. No proxy is there yet.
func Open(ctx context.Context, o Options) (*Session, *Step, error) {
	l, err := lab.New(o.Options)
	if err != nil {
		return nil, nil, err
	}
	s := &Session{o: o, Lab: l}
	took, err := l.Run(ctx)
	if err != nil {
		l.Close()
		return nil, nil, err
	}
	use, err := l.Use()
	if err != nil {
		l.Close()
		return nil, nil, err
	}
	s.Swarm = swarm.New(swarm.Options{Addr: l.Addr("grpc"), Shape: o.Shape, Protocol: o.Protocol})
	return s, &Step{Name: "start", Wall: round(took), CPU: round(use.CPU), After: use}, nil
}

// Close ends everything.
func (s *Session) Close() {
	s.Swarm.Stop()
	s.Lab.Close()
}

// moment is what had been used up.
type moment struct {
	use     lab.Use
	self    float64
	traffic swarm.Totals
	refused int64
}

func (s *Session) now() (moment, error) {
	use, err := s.Lab.Use()
	return moment{use: use, self: ownCPU(), traffic: s.Swarm.Traffic(), refused: s.Swarm.Refused()}, err
}

func ownCPU() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail for oneself
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// step runs an act, waits for calm and says what both took. The act says when all
// was seen by returning.
func (s *Session) step(name string, act func() error) (*Step, error) {
	before, err := s.now()
	if err != nil {
		return nil, err
	}
	if err := act(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	wall := time.Since(before.use.At).Seconds()
	s.Swarm.Quiet(s.o.Calm)
	after, err := s.now()
	if err != nil {
		return nil, err
	}
	return &Step{
		Name: name, Wall: round(wall), After: after.use,
		CPU: round(after.use.CPU - before.use.CPU), SwarmCPU: round(after.self - before.self),
		Pushed: swarm.Since(before.traffic, after.traffic), Refused: after.refused - before.refused,
	}, nil
}

// sees is how many of the proxies see what happens to a service.
func (s *Session) sees(v mesh.Service) int {
	if !s.o.Shape.Scoped {
		return len(s.Proxies)
	}
	n := 0
	for i := range s.Proxies {
		if s.o.Shape.Service(i%s.o.Shape.Services).Namespace() == v.Namespace() {
			n++
		}
	}
	return n
}

// Connect brings n more proxies; those from the given endpoint of each service on.
func (s *Session) Connect(name string, n, from int) (*Step, error) {
	var added []*swarm.Proxy
	before, _ := s.Swarm.Broken()
	step, err := s.step(name, func() error {
		added = s.Swarm.Add(n, from, swarm.Well)
		return swarm.Wait(added, s.o.Limit)
	})
	if err != nil {
		return nil, err
	}
	if s.o.Protocol == swarm.Own && s.Swarm.Traffic()[swarm.Hosts].Responses == 0 {
		return nil, fmt.Errorf("%s: no virtual host came on its own", name)
	}
	s.Proxies = append(s.Proxies, added...)
	step.Seconds = Distribute(swarm.FullAfter(added))
	if broken, err := s.Swarm.Broken(); broken > before {
		return nil, fmt.Errorf("%s: %d streams broke; the first of all: %w", name, broken-before, err)
	}
	return step, nil
}

// KnownClass is the endpoint of each service whose proxy is of the same kind as
// the first endpoint's: of its version and its zone.
const KnownClass = 6

// Idle does nothing for a while.
func (s *Session) Idle(d time.Duration) (*Step, error) {
	return s.step("idle", func() error {
		time.Sleep(d)
		return nil
	})
}
