// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// nameTable is the type of Istio's table of names. An upstream agent that captures
// DNS is not ready before it has one, so it gets one: empty, as names are not
// served yet, and its DNS server then asks those of the pod.
const nameTable = "type.googleapis.com/istio.networking.nds.v1.NameTable"

// unserved is the answer to a request for a type that has no resources.
type unserved struct {
	head
	body mem.BufferSlice
}

// takeUnknown answers a type that is not served: names of it do not exist. A
// client that waits for one goes on at once instead of after its timeout.
func (s *stream) takeUnknown(r request) {
	switch {
	case len(r.url) > maxNodeID:
	case r.url == nameTable:
		// A request with a nonce acknowledges the answer.
		if r.nonce == "" {
			s.unserved = append(s.unserved, unserved{head{url: r.url, version: "1"}, emptyTable(s.protocol)})
		}
	case s.protocol == Delta && len(r.subscribe) > 0:
		s.unserved = append(s.unserved, unserved{head: head{url: r.url, removed: r.subscribe}})
	}
}

// emptyTable is the one resource, without a name, of a response; a type without
// content needs no message of that type.
func emptyTable(p Protocol) mem.BufferSlice {
	table := &anypb.Any{TypeUrl: nameTable}
	var m proto.Message = &discovery.DiscoveryResponse{Resources: []*anypb.Any{table}}
	if p == Delta {
		m = &discovery.DeltaDiscoveryResponse{Resources: []*discovery.Resource{{Version: "1", Resource: table}}}
	}
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err) // Only strings that are not UTF-8 could fail.
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}
}

func (s *stream) pumpUnserved(time.Time) error {
	for _, u := range s.unserved {
		u.nonce = s.nextNonce()
		if err := s.out.SendMsg(message(s.protocol, u.head, u.body)); err != nil {
			return err
		}
	}
	s.unserved = nil
	return nil
}
