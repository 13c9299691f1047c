// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"context"
	"fmt"
	"time"

	"github.com/isthmus-mesh/isthmus/test/bench/mesh"
	"github.com/isthmus-mesh/isthmus/test/bench/swarm"
)

// target is a service of the first namespace, another one for each change.
func (s *Session) target(i int) mesh.Service {
	k := s.o.Shape.Namespaces
	return s.o.Shape.Service(i * k % s.o.Shape.Services / k * k)
}

// change makes a change and waits until all who can see it have acknowledged it.
func (s *Session) change(m *swarm.Mark, objects []mesh.Object) error {
	defer s.Swarm.Unwatch()
	m.Begin(0)
	for _, o := range objects {
		if err := s.Lab.API.Put(o); err != nil {
			return err
		}
	}
	return m.Wait(s.o.Limit)
}

// repeat makes a change several times, waiting for calm after each, and sums up.
func (s *Session) repeat(name string, one func(i int) (*swarm.Mark, []mesh.Object)) (*Step, error) {
	var sum *Step
	var lags []float64
	for range s.o.Repeat {
		s.changes++
		step, err := s.step(name, func() error {
			m, objects := one(s.changes)
			err := s.change(m, objects)
			lags = append(lags, m.Lags()...)
			return err
		})
		if err != nil {
			return nil, err
		}
		if sum == nil {
			sum = step
			continue
		}
		sum.CPU += step.CPU
		sum.SwarmCPU += step.SwarmCPU
		sum.After = step.After
		for t, b := range step.Pushed {
			sum.Pushed[t] = sum.Pushed[t].Plus(b)
		}
	}
	n := float64(s.o.Repeat)
	sum.Changes, sum.Seconds = s.o.Repeat, Distribute(lags)
	sum.CPU, sum.SwarmCPU = round(sum.CPU/n), round(sum.SwarmCPU/n)
	return sum, nil
}

// Endpoint adds an endpoint to a service.
func (s *Session) Endpoint() (*Step, error) {
	return s.repeat("endpoint", func(i int) (*swarm.Mark, []mesh.Object) {
		v := s.target(i)
		addr := fmt.Sprintf("10.250.%d.1", i)
		return s.Swarm.Watch(addr, s.sees(v), swarm.Endpoints), v.Changed(addr)
	})
}

// Route changes a route of a VirtualService.
func (s *Session) Route() (*Step, error) {
	return s.repeat("route", func(i int) (*swarm.Mark, []mesh.Object) {
		v := s.o.Shape.Service(0)
		mark := fmt.Sprintf("mark-%d-of-it", i)
		return s.Swarm.Watch(mark, s.sees(v), swarm.Routes), []mesh.Object{v.VirtualService(mark)}
	})
}

// Cluster changes the clusters of one service by its DestinationRule.
func (s *Session) Cluster() (*Step, error) {
	return s.repeat("cluster", func(i int) (*swarm.Mark, []mesh.Object) {
		v := s.o.Shape.Service(0)
		// The number is looked for as Envoy's clusters hold it: a varint.
		requests := 1<<20 + i
		return s.Swarm.Watch(varint(requests), s.sees(v), swarm.Clusters), []mesh.Object{v.DestinationRule(requests)}
	})
}

func varint(n int) string {
	var b []byte
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return string(append(b, byte(n)))
}

// NewService adds a service.
func (s *Session) NewService() (*Step, error) {
	return s.repeat("new service", func(i int) (*swarm.Mark, []mesh.Object) {
		v := s.o.Shape.Added(i, fmt.Sprintf("new-%d", i))
		return s.Swarm.Watch(v.Host(), s.sees(v), swarm.Clusters, swarm.Endpoints, swarm.Routes), v.Registration()
	})
}

// churned begins the addresses of endpoints that churn.
const churned = "10.251."

// Churn adds an endpoint to one service after the other, so many a second.
func (s *Session) Churn(rate float64, during time.Duration) (*Step, error) {
	total := int(rate * during.Seconds())
	shape := s.o.Shape
	m := s.Swarm.WatchSeries(churned, total, s.sees(shape.Service(0)))
	defer s.Swarm.Unwatch()
	step, err := s.step(fmt.Sprintf("churn of %g/s", rate), func() error {
		begin := time.Now()
		for q := range total {
			time.Sleep(time.Until(begin.Add(time.Duration(float64(q) / rate * float64(time.Second)))))
			v := shape.Service((q*7 + 3) % shape.Services)
			if shape.Scoped {
				v = s.target(q*7 + 3)
			}
			m.Begin(q)
			for _, o := range v.Changed(swarm.Address(churned, q)) {
				if err := s.Lab.API.Put(o); err != nil {
					return err
				}
			}
		}
		// Of changes to one service, a proxy that is behind sees the newest only.
		s.Swarm.Quiet(s.o.Calm)
		return nil
	})
	if err != nil {
		return nil, err
	}
	lags := m.Lags()
	step.Changes, step.Seconds = total, Distribute(lags)
	step.Seen = round(float64(len(lags)) / float64(total*s.sees(shape.Service(0))))
	return step, nil
}

// Restart kills the control plane and starts it anew; the proxies connect again
// with what they have. The CPU is that of the new one, its start included.
func (s *Session) Restart(ctx context.Context) (*Step, error) {
	traffic, self, begin := s.Swarm.Traffic(), ownCPU(), time.Now()
	s.Lab.Kill()
	swarm.Reconnect(s.Proxies)
	if _, err := s.Lab.Run(ctx); err != nil {
		return nil, fmt.Errorf("restart: %w", err)
	}
	if err := swarm.Wait(s.Proxies, s.o.Limit); err != nil {
		return nil, fmt.Errorf("restart: %w", err)
	}
	wall := time.Since(begin).Seconds()
	s.Swarm.Quiet(s.o.Calm)
	after, err := s.now()
	if err != nil {
		return nil, err
	}
	return &Step{
		Name: "restart", Seconds: Distribute(swarm.FullAfter(s.Proxies)), CPU: round(after.use.CPU), Wall: round(wall),
		SwarmCPU: round(after.self - self), After: after.use, Pushed: swarm.Since(traffic, after.traffic),
	}, nil
}

// Storm makes all proxies connect anew at once.
func (s *Session) Storm() (*Step, error) {
	step, err := s.step("storm", func() error {
		swarm.Reconnect(s.Proxies)
		return swarm.Wait(s.Proxies, s.o.Limit)
	})
	if err != nil {
		return nil, err
	}
	step.Seconds = Distribute(swarm.FullAfter(s.Proxies))
	return step, nil
}

// Resent is how many resources of a step a proxy had already.
func (t *Step) Resent() (n int64) {
	for _, p := range t.Pushed {
		n += p.Unchanged
	}
	return n
}

// Seers is how many proxies see what happens in the first namespace.
func (s *Session) Seers() int { return s.sees(s.o.Shape.Service(0)) }
