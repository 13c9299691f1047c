// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"fmt"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// rules is what protoc-gen-validate makes of Envoy's messages.
type rules interface{ Validate() error }

// maxValid bounds what a checker remembers; a full one is forgotten whole.
const maxValid = 1 << 16

// checker validates messages and all that is packed into them: the generated
// rules stop at an Any, Envoy does not. It's for one goroutine.
type checker struct {
	// packs tells, by message type, whether an Any can be inside.
	packs map[protoreflect.FullName]bool
	// valid are hashes of packed messages that passed. Nearly all clusters pack
	// the same few.
	valid map[uint64]struct{}
}

func newChecker() *checker {
	return &checker{packs: map[protoreflect.FullName]bool{}, valid: map[uint64]struct{}{}}
}

// check validates a message. A packed type that isn't linked in is an error, for
// nobody could have made it here.
func (c *checker) check(m proto.Message) error {
	if v, ok := m.(rules); ok {
		if err := v.Validate(); err != nil {
			return err
		}
	}
	return c.inside(m.ProtoReflect())
}

// inside validates what is packed somewhere in a message.
func (c *checker) inside(m protoreflect.Message) (err error) {
	if a, ok := m.Interface().(*anypb.Any); ok {
		return c.packed(a)
	}
	if !c.canPack(m.Descriptor()) {
		return nil
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					err = c.inside(v.Message())
					return err == nil
				})
			}
		case fd.Message() == nil || !c.canPack(fd.Message()):
		case fd.IsList():
			for i := 0; i < v.List().Len() && err == nil; i++ {
				err = c.inside(v.List().Get(i).Message())
			}
		default:
			err = c.inside(v.Message())
		}
		return err == nil
	})
	return err
}

func (c *checker) packed(a *anypb.Any) error {
	if a.GetTypeUrl() == "" {
		return nil
	}
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(a.GetTypeUrl()) // never fails
	_, _ = d.Write(a.GetValue())
	if _, ok := c.valid[d.Sum64()]; ok {
		return nil
	}
	m, err := a.UnmarshalNew()
	if err != nil {
		return fmt.Errorf("unpack %s: %w", a.GetTypeUrl(), err)
	}
	if err := c.check(m); err != nil {
		return err
	}
	if len(c.valid) >= maxValid {
		clear(c.valid)
	}
	c.valid[d.Sum64()] = struct{}{}
	return nil
}

// canPack tells whether an Any can be somewhere in messages of this type.
func (c *checker) canPack(d protoreflect.MessageDescriptor) bool {
	if known, ok := c.packs[d.FullName()]; ok {
		return known
	}
	found := reaches(d, map[protoreflect.FullName]bool{})
	c.packs[d.FullName()] = found
	return found
}

// reaches looks for an Any below a type; types may hold themselves.
func reaches(d protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) bool {
	if d.FullName() == "google.protobuf.Any" {
		return true
	}
	if seen[d.FullName()] {
		return false
	}
	seen[d.FullName()] = true
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		if fd.IsMap() {
			fd = fd.MapValue()
		}
		if fd.Message() != nil && reaches(fd.Message(), seen) {
			return true
		}
	}
	return false
}
