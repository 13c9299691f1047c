// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"encoding/binary"
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
)

// hcmURL is the type of the filter that names a route configuration.
const hcmURL = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"

// errWire is what a message that cannot be read gives.
var errWire = errors.New("the server sent no protobuf")

// each calls f for the fields of a message that are varints (v) or have a length (b).
func each(m []byte, f func(field protowire.Number, v uint64, b []byte)) {
	for len(m) > 0 {
		field, typ, n := protowire.ConsumeTag(m)
		if n < 0 {
			return
		}
		m = m[n:]
		var v uint64
		var b []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(m)
		case protowire.BytesType:
			b, n = protowire.ConsumeBytes(m)
		default:
			n = protowire.ConsumeFieldValue(field, typ, m)
		}
		if n < 0 {
			return
		}
		m = m[n:]
		if typ == protowire.VarintType || typ == protowire.BytesType {
			f(field, v, b)
		}
	}
}

// at follows a path of fields and returns the last one found there, or nil.
func at(m []byte, path ...protowire.Number) (out []byte) {
	if len(path) == 0 {
		return m
	}
	each(m, func(field protowire.Number, _ uint64, b []byte) {
		if field == path[0] && b != nil {
			out = at(b, path[1:]...)
		}
	})
	return out
}

// endpointsOf is the name under which a cluster's endpoints are asked for, nil if
// they are not.
func endpointsOf(cluster []byte) []byte {
	const byEDS = 3
	var name, service []byte
	typ := uint64(0)
	each(cluster, func(field protowire.Number, v uint64, b []byte) {
		switch field {
		case 1:
			name = b
		case 2:
			typ = v
		case 3:
			service = at(b, 2)
		}
	})
	if typ != byEDS {
		return nil
	}
	if len(service) > 0 {
		return service
	}
	return name
}

// routesOf calls f for each route configuration that a listener names.
func routesOf(listener []byte, f func([]byte)) {
	each(listener, func(field protowire.Number, _ uint64, chain []byte) {
		if field != 3 && field != 25 {
			return
		}
		each(chain, func(field protowire.Number, _ uint64, filter []byte) {
			if field != 3 {
				return
			}
			if config := at(filter, 4); string(at(config, 1)) == hcmURL {
				if name := at(config, 2, 3, 2); name != nil {
					f(name)
				}
			}
		})
	})
}

// hasVHDS tells whether a route configuration's virtual hosts come on their own.
func hasVHDS(routes []byte) (yes bool) {
	each(routes, func(field protowire.Number, _ uint64, b []byte) { yes = yes || field == 9 && b != nil })
	return yes
}

// splitter cuts a stream of gRPC messages into the fields of each message as they
// come, so that nobody holds a whole message of megabytes.
type splitter struct {
	// rest is the beginning of what is not complete yet.
	rest []byte
	// size of the message, and how much of it is still to come, rest included.
	size, left uint32
	// inside is false between messages.
	inside bool
}

// feed takes what was read. It calls field for each field that has a length, and
// end after each message, when size is still its size.
func (s *splitter) feed(p []byte, field func(protowire.Number, []byte) error, end func() error) error {
	if len(s.rest) > 0 {
		s.rest = append(s.rest, p...)
		p = s.rest
	}
	for {
		n, err := s.step(p, field)
		if err != nil {
			return err
		}
		if s.inside && s.left == 0 {
			s.inside = false
			if err := end(); err != nil {
				return err
			}
		} else if n == 0 {
			break
		}
		p = p[n:]
	}
	s.keep(p)
	return nil
}

// keep moves what is left to the front of its own memory.
func (s *splitter) keep(p []byte) {
	if len(p) == 0 {
		s.rest = nil
		return
	}
	switch {
	case len(s.rest) == 0:
		s.rest = append(make([]byte, 0, 2*len(p)), p...)
	case len(s.rest) > len(p):
		s.rest = s.rest[:copy(s.rest, p)]
	}
}

// step takes one header or field off p and returns its size; 0 if it is not whole.
func (s *splitter) step(p []byte, field func(protowire.Number, []byte) error) (int, error) {
	if !s.inside {
		if len(p) < messageHeader {
			return 0, nil
		}
		if p[0] != 0 {
			return 0, errors.New("the server sent a compressed message")
		}
		s.inside, s.size = true, binary.BigEndian.Uint32(p[1:])
		s.left = s.size
		return messageHeader, nil
	}
	number, typ, n := protowire.ConsumeTag(p)
	if n < 0 {
		return 0, s.unfinished(p)
	}
	if typ == protowire.BytesType {
		length, m := protowire.ConsumeVarint(p[n:])
		if m < 0 {
			return 0, s.unfinished(p)
		}
		size := n + m + int(length)
		if size > int(s.left) {
			return 0, errWire
		}
		if size > len(p) {
			return 0, nil
		}
		s.left -= uint32(size)
		return size, field(number, p[n+m:size])
	}
	m := protowire.ConsumeFieldValue(number, typ, p[n:])
	if m < 0 {
		return 0, s.unfinished(p)
	}
	s.left -= uint32(n + m)
	return n + m, nil
}

// unfinished tells a field that has not come yet from what is none.
func (s *splitter) unfinished(p []byte) error {
	if len(p) >= int(s.left) || len(p) > 32 {
		return errWire
	}
	return nil
}
