// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"errors"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// validator is what protoc-gen-validate makes of Envoy's messages.
type validator interface{ Validate() error }

// validate checks a message and all that is packed into it: the generated rules
// stop at an Any, Envoy does not. A packed type that isn't linked in is an error,
// for nobody could have made it here.
func validate(m proto.Message) error {
	if v, ok := m.(validator); ok {
		if err := v.Validate(); err != nil {
			return err
		}
	}
	return validatePacked(m.ProtoReflect())
}

func validatePacked(m protoreflect.Message) error {
	if a, ok := m.Interface().(*anypb.Any); ok {
		if a.GetTypeUrl() == "" {
			return nil
		}
		inner, err := a.UnmarshalNew()
		if err != nil {
			return err
		}
		return validate(inner)
	}
	var errs []error
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() == nil {
				return true
			}
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				errs = append(errs, validatePacked(v.Message()))
				return true
			})
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				errs = append(errs, validatePacked(v.List().Get(i).Message()))
			}
		default:
			errs = append(errs, validatePacked(v.Message()))
		}
		return true
	})
	return errors.Join(errs...)
}
