// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"fmt"
	"slices"
	"sort"
	"strings"
)

// FieldError says what is wrong with one field of a pod, and what would be right.
type FieldError struct {
	// Field as a path, such as metadata.annotations[sidecar.istio.io/proxyCPU].
	Field string
	// Value that was found.
	Value string
	// Reason tells what is wrong and what would be right.
	Reason string
}

func (e FieldError) String() string {
	return fmt.Sprintf("%s: %q: %s", e.Field, abbreviate(e.Value), e.Reason)
}

// RefusedError lists all that is wrong with a pod, sorted by field.
type RefusedError struct {
	Fields []FieldError
}

func (e *RefusedError) Error() string {
	lines := make([]string, 0, len(e.Fields))
	for _, f := range e.Fields {
		lines = append(lines, f.String())
	}
	return strings.Join(lines, "; ")
}

// refused returns a RefusedError with the fields sorted, or nil if there are none.
func refused(fields []FieldError) error {
	if len(fields) == 0 {
		return nil
	}
	fields = slices.Clone(fields)
	sort.Slice(fields, func(i, j int) bool { return fields[i].Field < fields[j].Field })
	return &RefusedError{Fields: fields}
}

func annotationField(key string) string { return "metadata.annotations[" + key + "]" }

func labelField(key string) string { return "metadata.labels[" + key + "]" }

// abbreviate keeps messages readable when the value is not.
func abbreviate(s string) string {
	const limit = 80
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
