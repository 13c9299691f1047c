// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"fmt"

	"github.com/isthmus-mesh/isthmus/test/bench/mesh"
	"github.com/isthmus-mesh/isthmus/test/bench/swarm"
)

// Company is bad proxies beside the good ones.
type Company struct {
	Slow, Stuck, Rejecting []*swarm.Proxy
}

// Rough adds bad proxies, n of each kind. The slow ones read fast until they have
// everything.
func (s *Session) Rough(n int) (*Company, error) {
	c := &Company{
		Slow:      s.Swarm.Add(n, 0, swarm.Slow),
		Stuck:     s.Swarm.Add(n, 0, swarm.Stuck),
		Rejecting: s.Swarm.Add(n, 0, swarm.Rejecting),
	}
	for _, p := range c.Slow {
		p.Hurry()
	}
	if err := swarm.Wait(c.Slow, s.o.Limit); err != nil {
		return nil, err
	}
	s.Swarm.Quiet(s.o.Calm)
	for _, p := range c.Slow {
		p.Dawdle()
	}
	return c, nil
}

// Recovery is how slow proxies come back.
type Recovery struct {
	// Changes that were made while they were slow, and the most responses that one
	// of them got from then until it had the newest state.
	Changes   int   `json:"changes"`
	Responses int64 `json:"responses"`
}

// Recover makes changes that slow proxies do not keep up with, lets them read fast
// again, and waits until they have the newest state.
func (s *Session) Recover(c *Company, changes int) (*Recovery, error) {
	before := make([]int64, len(c.Slow))
	for i, p := range c.Slow {
		before[i] = p.Responses()
	}
	v := s.o.Shape.Service(0)
	change := func(seers int) error {
		s.changes++
		mark := fmt.Sprintf("mark-%d-of-it", s.changes)
		return s.change(s.Swarm.Watch(mark, seers, swarm.Routes), []mesh.Object{v.VirtualService(mark)})
	}
	for range changes {
		if err := change(s.sees(v)); err != nil {
			return nil, err
		}
	}
	for _, p := range c.Slow {
		p.Hurry()
	}
	if err := change(s.sees(v) + len(c.Slow)); err != nil {
		return nil, fmt.Errorf("slow proxies that are fast again: %w", err)
	}
	r := &Recovery{Changes: changes + 1}
	for i, p := range c.Slow {
		r.Responses = max(r.Responses, p.Responses()-before[i])
	}
	return r, nil
}
