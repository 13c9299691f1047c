// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package envoy turns the IR into messages for stock Envoy 1.40. Every function
// is pure and deterministic: what has no order in the IR is sorted here, and packed
// messages are marshalled deterministically. Whoever publishes the results
// validates them, packed messages included.
package envoy

import (
	"errors"
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// packer packs messages into Any and remembers what failed, so that builders
// read as literals.
type packer struct{ errs []error }

func (p *packer) any(m proto.Message) *anypb.Any {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		p.errs = append(p.errs, fmt.Errorf("pack %s: %w", m.ProtoReflect().Descriptor().FullName(), err))
		return &anypb.Any{}
	}
	return &anypb.Any{
		TypeUrl: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()),
		Value:   b,
	}
}

func (p *packer) fail(format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf(format, args...))
}

// done returns what failed.
func (p *packer) done(kind, name string) error {
	if err := errors.Join(p.errs...); err != nil {
		return fmt.Errorf("%s %q: %w", kind, name, err)
	}
	return nil
}

func u32(n uint32) *wrapperspb.UInt32Value { return wrapperspb.UInt32(n) }

// optU32 leaves out zero.
func optU32(n uint32) *wrapperspb.UInt32Value {
	if n == 0 {
		return nil
	}
	return wrapperspb.UInt32(n)
}

func ptrU32(n *uint32) *wrapperspb.UInt32Value {
	if n == nil {
		return nil
	}
	return wrapperspb.UInt32(*n)
}

func yes() *wrapperspb.BoolValue { return wrapperspb.Bool(true) }

func no() *wrapperspb.BoolValue { return wrapperspb.Bool(false) }

// optDuration leaves out zero.
func optDuration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

func socketAddress(ip string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       ip,
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

// fields is a struct of strings for metadata.
func fields(kv map[string]string) *structpb.Struct {
	s := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for k, v := range kv {
		if v != "" {
			s.Fields[k] = structpb.NewStringValue(v)
		}
	}
	return s
}

// adsForEver is ads for what has to be awaited as long as it takes: a table without
// its virtual hosts would take known hosts for unknown ones.
func adsForEver() *corev3.ConfigSource {
	c := ads(0)
	c.InitialFetchTimeout = durationpb.New(0)
	return c
}

// ads is the config source of the stream that delivers everything; it is awaited
// for Envoy's own 15 s if no time is given.
func ads(timeout time.Duration) *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
		InitialFetchTimeout:   optDuration(timeout),
	}
}
