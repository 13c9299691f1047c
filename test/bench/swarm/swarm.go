// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package swarm is thousands of fake sidecars: they connect to a control plane,
// subscribe as Envoy does, acknowledge what they get, and note when it came and
// what it weighed. They read no more of it than that takes.
//
//	Swarm ─▶ Proxy (one goroutine each) ─▶ conn (HTTP/2) ─▶ control plane
//	  └▶ Mark: a change that is waited for
package swarm

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/test/bench/mesh"
)

// Type of resource.
type Type int

// The types, in the order in which a proxy first asks for them.
const (
	Clusters Type = iota
	Endpoints
	Listeners
	Routes
	Hosts
	types
)

var typeURLs = [types]string{
	"type.googleapis.com/envoy.config.cluster.v3.Cluster",
	"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
	"type.googleapis.com/envoy.config.listener.v3.Listener",
	"type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
	"type.googleapis.com/envoy.config.route.v3.VirtualHost",
}

// String is the type's discovery service.
func (t Type) String() string { return [types]string{"CDS", "EDS", "LDS", "RDS", "VHDS"}[t] }

// Protocol is how a proxy asks.
type Protocol string

// The protocols.
const (
	Delta Protocol = "delta"
	// World is state of the world.
	World Protocol = "sotw"
	// Own is delta as our agent's Envoys ask: virtual hosts come on their own.
	Own Protocol = "vhds"
)

// Manner is how a proxy behaves.
type Manner int

// The manners.
const (
	// Well reads at once and acknowledges.
	Well Manner = iota
	// Slow reads a kilobyte a second.
	Slow
	// Stuck reads and never answers.
	Stuck
	// Rejecting refuses everything.
	Rejecting
)

// slowRate is what a slow proxy reads in a second.
const slowRate = 1 << 10

// Options of a Swarm.
type Options struct {
	// Addr of the control plane's plaintext ADS.
	Addr     string
	Shape    *mesh.Shape
	Protocol Protocol
}

// Traffic counts what came.
type Traffic struct {
	Bytes     int64 `json:"bytes"`
	Responses int64 `json:"responses"`
	Resources int64 `json:"resources"`
	Removed   int64 `json:"removed,omitempty"`
	// Unchanged is the resources that the proxy had already, in this version.
	Unchanged int64 `json:"unchanged,omitempty"`
}

// Plus adds two amounts.
func (a Traffic) Plus(b Traffic) Traffic {
	return Traffic{
		Bytes: a.Bytes + b.Bytes, Responses: a.Responses + b.Responses, Resources: a.Resources + b.Resources,
		Removed: a.Removed + b.Removed, Unchanged: a.Unchanged + b.Unchanged,
	}
}

// Minus takes an amount off another.
func (a Traffic) Minus(b Traffic) Traffic {
	return Traffic{
		Bytes: a.Bytes - b.Bytes, Responses: a.Responses - b.Responses, Resources: a.Resources - b.Resources,
		Removed: a.Removed - b.Removed, Unchanged: a.Unchanged - b.Unchanged,
	}
}

// Totals is Traffic by type.
type Totals [types]Traffic

// counters is Traffic that many proxies add to.
type counters struct{ bytes, responses, resources, removed, unchanged atomic.Int64 }

// Swarm is many proxies.
type Swarm struct {
	o        Options
	names    [types]*names
	versions *names
	traffic  [types]counters
	mark     atomic.Pointer[Mark]
	// last is when something came, in nanoseconds.
	last atomic.Int64
	// refused counts streams that the server had no room for, broken those that
	// ended for another reason.
	refused, broken atomic.Int64
	proxies         []*Proxy
	running         sync.WaitGroup
	problem         atomic.Pointer[error]
}

// New returns a Swarm of nobody.
func New(o Options) *Swarm {
	s := &Swarm{o: o, versions: newNames()}
	for t := range s.names {
		s.names[t] = newNames()
	}
	return s
}

// Add starts n proxies of a manner. They are on the workloads of the mesh, the
// first of each service before the second: beyond that, from is the endpoint to
// begin with.
func (s *Swarm) Add(n, from int, m Manner) []*Proxy {
	var out []*Proxy
	for i := range n {
		v := s.o.Shape.Service(i % s.o.Shape.Services)
		p := newProxy(s, v, v.Endpoint(from+i/s.o.Shape.Services), m)
		out = append(out, p)
		s.running.Go(p.run)
	}
	s.proxies = append(s.proxies, out...)
	return out
}

// Stop ends all proxies.
func (s *Swarm) Stop() {
	for _, p := range s.proxies {
		p.end()
	}
	s.running.Wait()
}

// Reconnect makes the proxies connect anew, at once, with what they have.
func Reconnect(proxies []*Proxy) {
	for _, p := range proxies {
		p.again()
	}
}

// Wait waits until all proxies have their whole configuration, or all that was
// new since they connected anew.
func Wait(proxies []*Proxy, limit time.Duration) error {
	late := time.After(limit)
	missing := 0
	for _, p := range proxies {
		select {
		case <-p.settled():
		case <-late:
			missing++
			late = time.After(0)
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d of %d proxies have no full configuration after %v", missing, len(proxies), limit)
	}
	return nil
}

// Quiet waits until nothing has come for a while.
func (s *Swarm) Quiet(calm time.Duration) {
	begin := time.Now()
	for {
		last := time.Unix(0, s.last.Load())
		if last.Before(begin) {
			last = begin
		}
		rest := calm - time.Since(last)
		if rest <= 0 {
			return
		}
		time.Sleep(rest)
	}
}

// Traffic until now, by type.
func (s *Swarm) Traffic() (out Totals) {
	for t := range out {
		c := &s.traffic[t]
		out[t] = Traffic{
			Bytes: c.bytes.Load(), Responses: c.responses.Load(), Resources: c.resources.Load(),
			Removed: c.removed.Load(), Unchanged: c.unchanged.Load(),
		}
	}
	return out
}

// Since is the traffic between two moments, without what did not come.
func Since(before, after Totals) map[string]Traffic {
	out := map[string]Traffic{}
	for t := range before {
		a, b := before[t], after[t]
		if a.Responses != b.Responses {
			out[Type(t).String()] = b.Minus(a)
		}
	}
	return out
}

// Refused is how many streams the server had no room for.
func (s *Swarm) Refused() int64 { return s.refused.Load() }

// Broken is how many streams ended without anybody's wish, and why the first did.
func (s *Swarm) Broken() (int64, error) {
	if p := s.problem.Load(); p != nil {
		return s.broken.Load(), *p
	}
	return s.broken.Load(), nil
}

// FullAfter is the seconds that each proxy took to its first full configuration.
func FullAfter(proxies []*Proxy) []float64 {
	out := make([]float64, len(proxies))
	for i, p := range proxies {
		out[i] = p.fullAfter().Seconds()
	}
	return out
}
