// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/test/bench/mesh"
)

// Proxy is one fake sidecar. What it knows lasts longer than its connections.
type Proxy struct {
	swarm  *Swarm
	node   []byte
	manner Manner
	rate   atomic.Int32
	stop   chan struct{}
	state  state
	sight  sight
	life   life
	// responses that came.
	responses atomic.Int64
}

// life is what others ask of a proxy and tell it.
type life struct {
	sync.Mutex
	conn *conn
	// begun is when the proxy first connected, or was told to connect anew.
	begun time.Time
	took  time.Duration
	full  chan struct{}
	// wished is set when the end of the connection is.
	wished, ended bool
}

// ownMetadata is how an agent of ours says what its Envoy can take (docs/decisions/0012).
var ownMetadata = map[string]any{"ISTHMUS_DISCOVERY": "Full"}

func newProxy(s *Swarm, v mesh.Service, e mesh.Endpoint, m Manner) *Proxy {
	var more map[string]any
	if s.o.Protocol == Own {
		more = ownMetadata
	}
	node, err := nodeOf(v, e, more)
	if err != nil {
		panic(err) // the metadata is ours
	}
	p := &Proxy{swarm: s, node: node, manner: m, stop: make(chan struct{})}
	p.life.full = make(chan struct{})
	if m == Slow {
		p.Dawdle()
	}
	return p
}

// Dawdle makes a proxy that was added as a slow one read slowly.
func (p *Proxy) Dawdle() { p.rate.Store(slowRate) }

// Hurry makes it read as fast as it can.
func (p *Proxy) Hurry() { p.rate.Store(0) }

// keepsUp tells whether the proxy is one that changes are waited for.
func (p *Proxy) keepsUp() bool { return p.manner == Well || p.manner == Slow && p.rate.Load() == 0 }

// Responses is how many responses have come.
func (p *Proxy) Responses() int64 { return p.responses.Load() }

func (p *Proxy) settled() <-chan struct{} {
	p.life.Lock()
	defer p.life.Unlock()
	return p.life.full
}

func (p *Proxy) fullAfter() time.Duration {
	p.life.Lock()
	defer p.life.Unlock()
	return p.life.took
}

// settle notes that the proxy has everything.
func (p *Proxy) settle() {
	p.life.Lock()
	defer p.life.Unlock()
	select {
	case <-p.life.full:
	default:
		p.life.took = time.Since(p.life.begun)
		close(p.life.full)
	}
}

func (p *Proxy) isFull() bool {
	select {
	case <-p.settled():
		return true
	default:
		return false
	}
}

// again makes the proxy connect anew.
func (p *Proxy) again() {
	p.life.Lock()
	defer p.life.Unlock()
	p.life.begun, p.life.full, p.life.wished = time.Now(), make(chan struct{}), true
	if p.life.conn != nil {
		p.life.conn.close()
	}
}

// end ends the proxy.
func (p *Proxy) end() {
	p.life.Lock()
	defer p.life.Unlock()
	if p.life.ended {
		return
	}
	p.life.ended = true
	close(p.stop)
	if p.life.conn != nil {
		p.life.conn.close()
	}
}

// use makes a connection the one that others may close; false if it is too late.
func (p *Proxy) use(c *conn) bool {
	p.life.Lock()
	defer p.life.Unlock()
	p.life.conn, p.life.wished = c, false
	return !p.life.ended
}

// asked tells whether the connection's end was wished for, or the proxy's.
func (p *Proxy) asked() (again, ended bool) {
	p.life.Lock()
	defer p.life.Unlock()
	return p.life.wished, p.life.ended
}

// run connects until the proxy is ended.
func (p *Proxy) run() {
	p.life.Lock()
	p.life.begun = time.Now()
	p.life.Unlock()
	for {
		full := p.isFull()
		err := p.session()
		again, ended := p.asked()
		if ended {
			return
		}
		var away *net.OpError
		switch {
		case !again:
			p.note(err, full)
			p.rest(250 * time.Millisecond)
		case errors.As(err, &away) && away.Op == "dial":
			p.rest(20 * time.Millisecond)
		}
	}
}

// rest waits for once to three times as long.
func (p *Proxy) rest(d time.Duration) {
	select {
	case <-p.stop:
	case <-time.After(d + rand.N(2*d)):
	}
}

// note counts why a connection ended.
func (p *Proxy) note(err error, full bool) {
	var s status
	if errors.As(err, &s) && s.exhausted() && !full {
		p.swarm.refused.Add(1)
		return
	}
	p.swarm.broken.Add(1)
	p.swarm.problem.CompareAndSwap(nil, &err)
}

// session is one connection.
func (p *Proxy) session() error {
	method, window := "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources", uint32(fastWindow)
	if p.swarm.o.Protocol == World {
		method = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
	}
	if p.manner == Slow {
		window = slowWindow
	}
	c, err := dial(p.swarm.o.Addr, method, window, &countingReader{rate: &p.rate, stop: p.stop})
	if err != nil {
		return err
	}
	defer c.close()
	if !p.use(c) {
		return nil
	}
	if err := p.begin(c); err != nil {
		return err
	}
	var cut splitter
	for {
		data, err := c.next()
		if err != nil {
			return err
		}
		err = cut.feed(data, p.field, func() error { return p.message(c, int64(cut.size)) })
		if err != nil {
			return err
		}
	}
}
