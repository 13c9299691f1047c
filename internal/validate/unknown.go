// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package validate

import (
	"encoding/json"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// warnUnknown walks the JSON along the message's description and warns of every
// field that the message does not have. What has the wrong type is left to the
// reader of the message.
func warnUnknown(c checker, raw []byte, d protoreflect.MessageDescriptor) {
	var fields map[string]json.RawMessage
	if isWellKnown(d) || json.Unmarshal(raw, &fields) != nil {
		return
	}
	for _, k := range sortedKeys(fields) {
		f := d.Fields().ByJSONName(k)
		if f == nil {
			f = d.Fields().ByName(protoreflect.Name(k))
		}
		switch at := c.at(abbreviate(k)); {
		case f == nil:
			at.warn("the field is not known to this version", "it is ignored; look for a misspelling")
		case f.IsMap():
			warnUnknownMap(at, fields[k], f.MapValue())
		case f.IsList():
			warnUnknownList(at, fields[k], f)
		case f.Message() != nil:
			warnUnknown(at, fields[k], f.Message())
		}
	}
}

func warnUnknownMap(c checker, raw []byte, value protoreflect.FieldDescriptor) {
	var entries map[string]json.RawMessage
	if value.Message() == nil || json.Unmarshal(raw, &entries) != nil {
		return
	}
	for _, k := range sortedKeys(entries) {
		warnUnknown(c.key(k), entries[k], value.Message())
	}
}

func warnUnknownList(c checker, raw []byte, f protoreflect.FieldDescriptor) {
	var elements []json.RawMessage
	if f.Message() == nil || json.Unmarshal(raw, &elements) != nil {
		return
	}
	for i, e := range elements {
		warnUnknown(c.index(i), e, f.Message())
	}
}

// isWellKnown tells the messages whose JSON is not an object of their fields.
func isWellKnown(d protoreflect.MessageDescriptor) bool {
	return strings.HasPrefix(string(d.FullName()), "google.protobuf.")
}
