// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"strconv"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// Protocol is one of the two forms of ADS.
type Protocol uint8

// The two protocols.
const (
	Delta Protocol = iota
	StateOfTheWorld
	numProtocols
)

func (p Protocol) String() string {
	if p == Delta {
		return "delta"
	}
	return "sotw"
}

// Field numbers of envoy.service.discovery.v3. DeltaDiscoveryResponse and
// DiscoveryResponse agree on these four.
const (
	fieldVersion   = 1
	fieldResources = 2
	fieldTypeURL   = 4
	fieldNonce     = 5
	// fieldRemoved is removed_resources, of DeltaDiscoveryResponse only.
	fieldRemoved = 6

	// Of Resource, which wraps the Any on delta streams.
	fieldResourceVersion = 1
	fieldResourceAny     = 2
	fieldResourceName    = 3

	// Of google.protobuf.Any.
	fieldAnyURL   = 1
	fieldAnyValue = 2
)

// smallBody is the size below which copying a body into the frame around it is
// cheaper than handing it to the transport as a buffer of its own.
const smallBody = 512

// response is a finished message: a head of its own and resources that many
// streams share.
type response struct{ buffers mem.BufferSlice }

// codec writes responses as they are and leaves every other message to the
// ordinary protobuf codec, so that other services may share the server.
type codec struct{ encoding.CodecV2 }

// newCodec returns the codec for grpc.ForceServerCodecV2.
func newCodec() codec { return codec{encoding.GetCodecV2(proto.Name)} }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if r, ok := v.(*response); ok {
		return r.buffers, nil
	}
	return c.CodecV2.Marshal(v)
}

// head is what differs from stream to stream.
type head struct {
	version string
	url     string
	nonce   string
	removed []string
}

// message puts a head before resources that encode has made.
func message(p Protocol, h head, resources mem.BufferSlice) *response {
	b := make([]byte, 0, 64+len(h.version)+len(h.url)+len(h.nonce))
	b = appendString(b, fieldVersion, h.version)
	b = appendString(b, fieldTypeURL, h.url)
	b = appendString(b, fieldNonce, h.nonce)
	if p == Delta {
		for _, n := range h.removed {
			b = appendString(b, fieldRemoved, n)
		}
	}
	out := make(mem.BufferSlice, 0, 1+len(resources))
	return &response{append(append(out, mem.SliceBuffer(b)), resources...)}
}

// encode frames resources as the repeated field of either response. Large
// bodies are not copied.
func encode(p Protocol, rs []*resource.Resource) mem.BufferSlice {
	var out mem.BufferSlice
	var arena []byte
	for _, r := range rs {
		arena = appendFrame(arena, p, r)
		if len(r.Body) < smallBody {
			arena = append(arena, r.Body...)
			continue
		}
		out = append(out, mem.SliceBuffer(arena), mem.SliceBuffer(r.Body))
		arena = nil
	}
	if len(arena) > 0 {
		out = append(out, mem.SliceBuffer(arena))
	}
	return out
}

// appendFrame writes everything of a resource up to its body, which comes last.
func appendFrame(b []byte, p Protocol, r *resource.Resource) []byte {
	url := r.Type.URL()
	anySize := fieldSize(len(url)) + fieldSize(len(r.Body))
	if p == StateOfTheWorld {
		b = appendTag(b, fieldResources, anySize)
		return appendAny(b, url, len(r.Body))
	}
	version := formatVersion(r.Version)
	b = appendTag(b, fieldResources, fieldSize(len(r.Name))+fieldSize(len(version))+fieldSize(anySize))
	b = appendString(b, fieldResourceName, r.Name)
	b = appendString(b, fieldResourceVersion, version)
	b = appendTag(b, fieldResourceAny, anySize)
	return appendAny(b, url, len(r.Body))
}

func appendAny(b []byte, url string, body int) []byte {
	b = appendString(b, fieldAnyURL, url)
	return appendTag(b, fieldAnyValue, body)
}

// appendTag begins a length-delimited field; all our field numbers fit one byte.
func appendTag(b []byte, field protowire.Number, size int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.BytesType), uint64(size))
}

func appendString(b []byte, field protowire.Number, s string) []byte {
	return append(appendTag(b, field, len(s)), s...)
}

func fieldSize(n int) int { return 1 + protowire.SizeBytes(n) }

// formatVersion is a version on the wire.
func formatVersion(v uint64) string { return strconv.FormatUint(v, 16) }

// parseVersion reads a version that a client claims to have. What we did not
// write is 0, which is no resource's version.
func parseVersion(s string) uint64 {
	v, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		return 0
	}
	return v
}
