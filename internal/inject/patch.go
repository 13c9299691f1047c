// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Operation is one step of a JSON patch (RFC 6902).
type Operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// Patch returns the JSON patch that makes the pod before into the pod after; nil
// if they are the same. It names only what differs, so fields that this version of
// the API does not know survive in the object that the patch is applied to.
func Patch(before, after *corev1.Pod) ([]byte, error) {
	a, err := tree(before)
	if err != nil {
		return nil, err
	}
	b, err := tree(after)
	if err != nil {
		return nil, err
	}
	ops := diff(nil, "", a, b)
	if len(ops) == 0 {
		return nil, nil
	}
	return json.Marshal(ops)
}

func tree(pod *corev1.Pod) (any, error) {
	b, err := json.Marshal(pod)
	if err != nil {
		return nil, fmt.Errorf("inject: marshal pod: %w", err)
	}
	var out any
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, fmt.Errorf("inject: read pod back: %w", err)
	}
	return out, nil
}

func diff(ops []Operation, path string, a, b any) []Operation {
	switch b := b.(type) {
	case map[string]any:
		if a, ok := a.(map[string]any); ok {
			return diffObject(ops, path, a, b)
		}
	case []any:
		if a, ok := a.([]any); ok {
			return diffList(ops, path, a, b)
		}
	}
	if reflect.DeepEqual(a, b) {
		return ops
	}
	return append(ops, Operation{Op: "replace", Path: path, Value: b})
}

func diffObject(ops []Operation, path string, a, b map[string]any) []Operation {
	for _, k := range slices.Sorted(maps.Keys(a)) {
		if _, ok := b[k]; !ok {
			ops = append(ops, Operation{Op: "remove", Path: path + "/" + escape(k)})
		}
	}
	for _, k := range slices.Sorted(maps.Keys(b)) {
		if old, ok := a[k]; ok {
			ops = diff(ops, path+"/"+escape(k), old, b[k])
			continue
		}
		ops = append(ops, Operation{Op: "add", Path: path + "/" + escape(k), Value: b[k]})
	}
	return ops
}

// diffList knows what injection does to lists: elements put before or after those
// that were there. Anything else replaces the list.
func diffList(ops []Operation, path string, a, b []any) []Operation {
	grown := len(b) - len(a)
	switch {
	case grown == 0:
		for i := range a {
			ops = diff(ops, path+"/"+strconv.Itoa(i), a[i], b[i])
		}
		return ops
	case grown > 0 && sameNames(a, b[:len(a)]):
		ops = diffList(ops, path, a, b[:len(a)])
		for _, v := range b[len(a):] {
			ops = append(ops, Operation{Op: "add", Path: path + "/-", Value: v})
		}
		return ops
	case grown > 0 && sameNames(a, b[grown:]):
		ops = diffList(ops, path, a, b[grown:])
		for i := range grown {
			ops = append(ops, Operation{Op: "add", Path: path + "/" + strconv.Itoa(i), Value: b[i]})
		}
		return ops
	}
	return append(ops, Operation{Op: "replace", Path: path, Value: b})
}

// sameNames tells whether two lists of the same length hold the same elements by
// name, or by value where there is none.
func sameNames(a, b []any) bool {
	return slices.EqualFunc(a, b, func(x, y any) bool {
		mx, okx := x.(map[string]any)
		my, oky := y.(map[string]any)
		if okx && oky && mx["name"] != nil {
			return mx["name"] == my["name"]
		}
		return reflect.DeepEqual(x, y)
	})
}

// escape is RFC 6901's.
func escape(key string) string {
	return strings.ReplaceAll(strings.ReplaceAll(key, "~", "~0"), "/", "~1")
}
