// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"bytes"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// sentinel is a name that no server has: the answer to it tells a proxy that
// connected anew that all it asked before was looked at.
const sentinel = "nothing-of-this-name"

// state is what a proxy has, and what it is being told.
type state struct {
	// subscribed names of endpoints and routes, and those of them not answered yet.
	subscribed, missing [types]set
	count               [types]int
	held                [types]held
	heard, asking       [types]bool
	nonce, version      [types]string
	// awaited are route configurations whose hosts have not come.
	awaited map[string]struct{}
	message message
}

// message is the response under way.
type message struct {
	url, nonce, version string
	removed             []string
	resources           int64
	unchanged           int64
	// add are names to subscribe to, by their type.
	add [types][]uint32
	// now are the names in a state-of-the-world response.
	now set
}

// begin opens the conversation: with nothing, or with all that the proxy has.
func (p *Proxy) begin(c *conn) error {
	s := &p.state
	s.message = message{}
	s.nonce, s.version = [types]string{}, [types]string{}
	if p.swarm.o.Protocol == World || !s.heard[Routes] {
		p.state = state{awaited: map[string]struct{}{}}
		return p.ask(c, request{node: p.node, typ: Clusters})
	}
	s.missing, s.count = [types]set{}, [types]int{}
	clear(s.awaited)
	id := p.swarm.names[Endpoints].id([]byte(sentinel))
	s.missing[Endpoints].add(id)
	s.count[Endpoints] = 1
	node := p.node
	for _, t := range []Type{Clusters, Listeners, Routes, Hosts, Endpoints} {
		if !s.asking[t] {
			continue
		}
		r := request{node: node, typ: t, versions: p.versions(t), subscribe: p.list(t)}
		if t == Endpoints {
			r.subscribe = append(r.subscribe, sentinel)
		}
		node = nil
		if err := c.send(r.delta()); err != nil {
			return err
		}
	}
	return nil
}

// list is the names that the proxy subscribes to.
func (p *Proxy) list(t Type) (out []string) {
	names := p.swarm.names[t]
	if t == Hosts {
		for id, v := range p.state.held[t] {
			if v != 0 {
				out = append(out, names.text(uint32(id)))
			}
		}
		return out
	}
	p.state.subscribed[t].each(func(id uint32) { out = append(out, names.text(id)) })
	return out
}

func (p *Proxy) versions(t Type) map[string]string {
	out := map[string]string{}
	for id, v := range p.state.held[t] {
		if v != 0 {
			out[p.swarm.names[t].text(uint32(id))] = p.swarm.versions.text(v - 1)
		}
	}
	return out
}

func (p *Proxy) ask(c *conn, r request) error {
	p.state.asking[r.typ] = true
	if p.swarm.o.Protocol != World {
		return c.send(r.delta())
	}
	r.names, r.version = p.list(r.typ), p.state.version[r.typ]
	if r.nonce == "" {
		r.nonce = p.state.nonce[r.typ]
	}
	return c.send(r.world())
}

// typeOf is the type of a resource's URL.
func typeOf(url []byte) (Type, bool) {
	for t, u := range typeURLs {
		if string(url) == u {
			return Type(t), true
		}
	}
	return 0, false
}

// field takes one field of a response.
func (p *Proxy) field(number protowire.Number, b []byte) error {
	m := &p.state.message
	switch number {
	case 1:
		m.version = string(b)
	case 2:
		return p.resource(b)
	case 4:
		m.url = string(b)
	case 5:
		m.nonce = string(b)
	case 6:
		m.removed = append(m.removed, string(b))
	}
	return nil
}

// resource takes one resource of a response; in delta it is wrapped.
func (p *Proxy) resource(b []byte) error {
	var name, version, body, url []byte
	packed := b
	if p.swarm.o.Protocol != World {
		each(b, func(field protowire.Number, _ uint64, v []byte) {
			switch field {
			case 1:
				version = v
			case 2:
				packed = v
			case 3:
				name = v
			}
		})
	}
	each(packed, func(field protowire.Number, _ uint64, v []byte) {
		switch field {
		case 1:
			url = v
		case 2:
			body = v
		}
	})
	t, ok := typeOf(url)
	if !ok {
		return fmt.Errorf("the server sent a resource of type %q", url)
	}
	if len(name) == 0 {
		name = at(body, 1) // of all types but listeners', whose first field it is too
	}
	m := &p.state.message
	m.resources++
	if p.manner == Rejecting {
		return nil
	}
	id := p.swarm.names[t].id(name)
	if !p.state.held[t].put(id, p.swarm.versions.id(version)) && p.swarm.o.Protocol != World {
		m.unchanged++
	}
	p.arrived(t, id)
	p.apply(t, name, body)
	if k := p.swarm.mark.Load(); k != nil && p.keepsUp() {
		p.sight.look(k, t, b)
	}
	return nil
}

// arrived notes that a name is answered.
func (p *Proxy) arrived(t Type, id uint32) {
	if p.state.missing[t].has(id) {
		p.state.missing[t].remove(id)
		p.state.count[t]--
	}
}

// apply learns from a resource what to subscribe to.
func (p *Proxy) apply(t Type, name, body []byte) {
	switch t {
	case Clusters:
		if n := endpointsOf(body); n != nil {
			p.want(Endpoints, n)
		}
	case Listeners:
		routesOf(body, func(n []byte) { p.want(Routes, n) })
	case Routes:
		if p.swarm.o.Protocol == Own && hasVHDS(body) {
			if _, known := p.state.awaited[string(name)]; !known && !p.state.asking[Hosts] {
				p.state.awaited[string(name)] = struct{}{}
			}
		}
	case Hosts:
		p.hosted(name)
	}
}

// want subscribes to a name.
func (p *Proxy) want(t Type, name []byte) {
	id := p.swarm.names[t].id(name)
	s := &p.state
	s.message.now.add(id)
	if s.subscribed[t].add(id) {
		s.missing[t].add(id)
		s.count[t]++
		s.message.add[t] = append(s.message.add[t], id)
	}
}

// hosted notes that hosts of a route configuration have come.
func (p *Proxy) hosted(name []byte) {
	if len(p.state.awaited) == 0 {
		return
	}
	if i := bytes.LastIndexByte(name, '/'); i > 0 {
		delete(p.state.awaited, string(name[:i]))
	}
}

// message answers a response that is complete.
func (p *Proxy) message(c *conn, size int64) error {
	s := &p.state
	m := s.message
	s.message = message{}
	t, ok := typeOf([]byte(m.url))
	if !ok {
		return fmt.Errorf("the server sent a response of type %q", m.url)
	}
	p.swarm.count(t, size, &m)
	p.responses.Add(1)
	s.heard[t] = true
	s.nonce[t], s.version[t] = m.nonce, m.version
	gone := p.removed(t, m.removed)
	if p.manner != Stuck {
		r := request{typ: t, nonce: m.nonce, refuse: p.manner == Rejecting}
		if err := p.ask(c, r); err != nil {
			return err
		}
		p.sight.acknowledged()
	}
	if err := p.follow(c, t, &m, gone); err != nil {
		return err
	}
	if p.complete() {
		p.settle()
	}
	return nil
}

func (s *Swarm) count(t Type, size int64, m *message) {
	s.last.Store(time.Now().UnixNano())
	k := &s.traffic[t]
	k.bytes.Add(size)
	k.responses.Add(1)
	k.resources.Add(m.resources)
	k.removed.Add(int64(len(m.removed)))
	k.unchanged.Add(m.unchanged)
}

// removed forgets names, and returns those to unsubscribe from.
func (p *Proxy) removed(t Type, names []string) (gone []string) {
	for _, n := range names {
		id := p.swarm.names[t].id([]byte(n))
		p.state.held[t].drop(id)
		p.arrived(t, id)
		if t == Hosts {
			p.hosted([]byte(n))
		}
		if t != Clusters {
			continue
		}
		id = p.swarm.names[Endpoints].id([]byte(n))
		if p.state.subscribed[Endpoints].has(id) {
			p.state.subscribed[Endpoints].remove(id)
			p.state.held[Endpoints].drop(id)
			p.arrived(Endpoints, id)
			gone = append(gone, n)
		}
	}
	return gone
}

// follow asks for what comes after a response: endpoints after clusters, routes
// after listeners, and at first each type after the one before.
func (p *Proxy) follow(c *conn, t Type, m *message, gone []string) error {
	s := &p.state
	var err error
	switch t {
	case Clusters:
		if changed := p.narrow(Endpoints, m); len(m.add[Endpoints]) > 0 || len(gone) > 0 || changed {
			err = p.ask(c, request{typ: Endpoints, subscribe: p.texts(Endpoints, m.add[Endpoints]), unsubscribe: gone})
		}
		if !s.asking[Endpoints] && !s.asking[Listeners] {
			return p.ask(c, request{typ: Listeners})
		}
	case Endpoints:
		if !s.asking[Listeners] && s.count[Endpoints] == 0 {
			return p.ask(c, request{typ: Listeners})
		}
	case Listeners:
		if changed := p.narrow(Routes, m); len(m.add[Routes]) > 0 || changed {
			return p.ask(c, request{typ: Routes, subscribe: p.texts(Routes, m.add[Routes])})
		}
	case Routes:
		if len(s.awaited) > 0 && !s.asking[Hosts] {
			return p.ask(c, request{typ: Hosts})
		}
	}
	return err
}

// narrow makes the subscription what a state-of-the-world response names, and
// tells whether that is less than before.
func (p *Proxy) narrow(t Type, m *message) bool {
	if p.swarm.o.Protocol != World {
		return false
	}
	less := false
	p.state.subscribed[t].each(func(id uint32) {
		if !m.now.has(id) {
			less = true
			p.state.subscribed[t].remove(id)
			p.arrived(t, id)
		}
	})
	return less
}

func (p *Proxy) texts(t Type, ids []uint32) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = p.swarm.names[t].text(id)
	}
	return out
}

// complete tells whether everything that the proxy asked for has come.
func (p *Proxy) complete() bool {
	s := &p.state
	return s.heard[Clusters] && s.heard[Listeners] && s.count[Endpoints] == 0 && s.count[Routes] == 0 && len(s.awaited) == 0
}
