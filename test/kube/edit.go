// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// Edit is one change to one field of an object.
type Edit struct {
	Op    string `json:"op"`
	Path  string `json:"path"` // a JSON pointer
	Value any    `json:"value,omitempty"`
}

// String says where and what.
func (e Edit) String() string { return e.Op + " " + e.Path }

// Patch is the edit as a JSON patch.
func (e Edit) Patch() []byte {
	b, err := json.Marshal([]Edit{e})
	if err != nil {
		panic(fmt.Sprintf("encode %v: %v", e, err)) // made of what JSON was decoded to
	}
	return b
}

// Edits lists an edit for each field that the manager applied: a text gets longer,
// a number larger, a list loses its first element, a map gets a key, and instead
// of getting another key an element of a list goes. Of fields that differ only in
// the element of a list they are in, of most labels, and of all that would start
// pods anew, one stands for the others.
func Edits(o *unstructured.Unstructured, manager string) ([]Edit, error) {
	var all []Edit
	seen := map[string]bool{}
	for _, m := range o.GetManagedFields() {
		if m.Manager != manager || m.Operation != metav1.ManagedFieldsOperationApply || m.Subresource != "" || m.FieldsV1 == nil {
			continue
		}
		var set fieldpath.Set
		if err := set.FromJSON(bytes.NewReader(m.FieldsV1.GetRawBytes())); err != nil {
			return nil, fmt.Errorf("read what %s owns: %w", manager, err)
		}
		set.Leaves().Iterate(func(p fieldpath.Path) {
			pointer, shape, at, ok := locate(o.Object, p)
			if !ok || seen[shape] {
				return
			}
			e, ok := change(pointer, at)
			if identifies(p) {
				e = Edit{Op: "remove", Path: pointer[:strings.LastIndexByte(pointer, '/')]}
			}
			if ok {
				seen[shape] = true
				all = append(all, e)
			}
		})
	}
	return all, nil
}

// identifies tells whether the field is one that an element of a list is known by:
// with another value it would be another element, which is nobody's drift.
func identifies(p fieldpath.Path) bool {
	if len(p) < 2 || p[len(p)-1].FieldName == nil || p[len(p)-2].Key == nil {
		return false
	}
	return slices.ContainsFunc(*p[len(p)-2].Key, func(f value.Field) bool { return f.Name == *p[len(p)-1].FieldName })
}

const (
	// templated is where a Deployment says what pods look like.
	templated = "/spec/template/"
	// labels of one object stand for each other, but for those that the operator
	// goes by itself.
	labels = "/metadata/labels/"
	ours   = "isthmus.dev~1"
)

// locate finds the value at a path, the pointer to it, and the shape of the path:
// the pointer without which element of a list it leads through.
func locate(v any, p fieldpath.Path) (pointer, shape string, at any, ok bool) {
	for _, step := range p {
		switch at := v.(type) {
		case map[string]any:
			if step.FieldName == nil {
				return "", "", nil, false
			}
			if v, ok = at[*step.FieldName]; !ok {
				return "", "", nil, false
			}
			part := "/" + escape(*step.FieldName)
			pointer, shape = pointer+part, shape+part
		case []any:
			i := element(at, step)
			if i < 0 {
				return "", "", nil, false
			}
			v = at[i]
			pointer, shape = pointer+"/"+strconv.Itoa(i), shape+"/*"
		default:
			return "", "", nil, false
		}
	}
	switch label, isLabel := strings.CutPrefix(pointer, labels); {
	case strings.HasPrefix(pointer, templated):
		shape = templated
	case isLabel && !strings.HasPrefix(label, ours):
		shape = labels
	}
	return pointer, shape, v, true
}

// element finds the element of a list that a step means: by keys, value or index.
func element(list []any, step fieldpath.PathElement) int {
	switch {
	case step.Index != nil && *step.Index < len(list):
		return *step.Index
	case step.Value != nil:
		return slices.IndexFunc(list, func(e any) bool { return fmt.Sprint(e) == fmt.Sprint((*step.Value).Unstructured()) })
	case step.Key != nil:
		return slices.IndexFunc(list, func(e any) bool {
			m, ok := e.(map[string]any)
			for _, k := range *step.Key {
				ok = ok && fmt.Sprint(m[k.Name]) == fmt.Sprint(k.Value.Unstructured())
			}
			return ok
		})
	}
	return -1
}

// change makes something else of a value.
func change(pointer string, from any) (Edit, bool) {
	replace := func(v any) (Edit, bool) { return Edit{Op: "replace", Path: pointer, Value: v}, true }
	switch v := from.(type) {
	case string:
		return replace(v + "x")
	case bool:
		return replace(!v)
	case int64:
		return replace(v + 1)
	case float64:
		return replace(v + 1)
	case []any:
		if len(v) == 0 {
			return Edit{}, false
		}
		return Edit{Op: "remove", Path: pointer + "/0"}, true
	case map[string]any:
		return Edit{Op: "add", Path: pointer + "/somebody", Value: "x"}, true
	}
	return Edit{}, false
}

func escape(s string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(s) }

// Follow watches an object from a version on until done says so; nil stands for
// the object gone.
func Follow(ctx context.Context, ri dynamic.ResourceInterface, from *unstructured.Unstructured, done func(*unstructured.Unstructured) bool) error {
	one := fields.OneTermEqualSelector("metadata.name", from.GetName()).String()
	lw := &cache.ListWatch{WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
		o.FieldSelector = one
		return ri.Watch(ctx, o)
	}}
	_, err := watchtools.Until(ctx, from.GetResourceVersion(), lw, func(e watch.Event) (bool, error) {
		u, ok := e.Object.(*unstructured.Unstructured)
		if !ok {
			return false, fmt.Errorf("watch %s: %v", Name(from), e.Object)
		}
		if e.Type == watch.Deleted {
			u = nil
		}
		return done(u), nil
	})
	if err != nil {
		return fmt.Errorf("follow %s: %w", Name(from), err)
	}
	return nil
}
