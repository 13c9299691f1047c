// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package patch lays spec.patches over rendered objects. It is pure. A patch is
// judged by what it changes, not by how it is written: every path in which the
// object differs afterwards must be one of those listed here, so what nobody
// thought of is refused.
package patch

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
)

// Refusal says why a patch cannot be applied.
type Refusal struct{ Patch, Why string }

func (r Refusal) Error() string { return "patches " + r.Patch + ": " + r.Why }

// targets are the kinds that can be patched.
var targets = map[string]struct {
	empty func() any
	open  []string
}{
	"Deployment":              {func() any { return &appsv1.Deployment{} }, deployment},
	"Service":                 {func() any { return &corev1.Service{} }, service},
	"HorizontalPodAutoscaler": {func() any { return &autoscalingv2.HorizontalPodAutoscaler{} }, autoscaler},
	"PodDisruptionBudget":     {func() any { return &policyv1.PodDisruptionBudget{} }, budget},
}

// Apply lays the patches over the objects, in their order, and changes the objects.
// The error is a Refusal.
func Apply(objects []*unstructured.Unstructured, patches []v1alpha1.Patch) error {
	for _, p := range patches {
		o := find(objects, p.Target)
		if o == nil {
			return Refusal{p.Name, fmt.Sprintf("there is no %s of %s: an autoscaler needs replicas.max above replicas.min, a disruption budget more than one replica", p.Target.Kind, p.Target.Part)}
		}
		patched, err := lay(o.Object, p)
		if err != nil {
			return Refusal{p.Name, err.Error()}
		}
		if path := offence(o.Object, patched, targets[p.Target.Kind].open, nil); path != nil {
			return Refusal{p.Name, strings.Join(path, ".") + " cannot be patched" + hint(path)}
		}
		o.Object = patched
	}
	return nil
}

// find is the target's object: of each kind a part has one.
func find(objects []*unstructured.Unstructured, t v1alpha1.PatchTarget) *unstructured.Unstructured {
	for _, o := range objects {
		part := o.GetLabels()[v1alpha1.LabelGateway]
		if o.GetLabels()[v1alpha1.LabelComponent] == v1alpha1.ComponentControlPlane {
			part = "isthmusd"
		}
		if part == t.Part && o.GetKind() == t.Kind {
			return o
		}
	}
	return nil
}

// lay merges, and checks that the outcome is still an object of its kind.
func lay(o map[string]any, p v1alpha1.Patch) (map[string]any, error) {
	text, err := json.Marshal(p.Merge)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	var over map[string]any
	if err := json.Unmarshal(text, &over); err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	before, err := plain(o)
	if err != nil {
		return nil, err
	}
	kind := targets[p.Target.Kind].empty()
	merged, err := strategicpatch.StrategicMergeMapPatch(before, over, kind)
	if err != nil {
		return nil, fmt.Errorf("does not fit a %s: %w", p.Target.Kind, err)
	}
	if merged, err = plain(merged); err != nil {
		return nil, err
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(merged, kind, true); err != nil {
		return nil, fmt.Errorf("does not fit a %s: %w", p.Target.Kind, err)
	}
	return merged, nil
}

// plain is a copy whose values are all of the types that objects from JSON have.
func plain(o map[string]any) (map[string]any, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("cannot be copied: %w", err)
	}
	var u unstructured.Unstructured
	if err := u.UnmarshalJSON(text); err != nil {
		return nil, fmt.Errorf("cannot be copied: %w", err)
	}
	return u.Object, nil
}

// offence is the first path, in alphabetical order, that differs and is not open.
func offence(before, after any, open, path []string) []string {
	if equal(before, after) || opened(open, path, before, after) {
		return nil
	}
	b, a := children(before), children(after)
	keys := map[string]any{}
	maps.Copy(keys, b)
	maps.Copy(keys, a)
	if len(keys) == 0 || b == nil && before != nil || a == nil && after != nil {
		return path
	}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if p := offence(b[k], a[k], open, append(slices.Clone(path), k)); p != nil {
			return p
		}
	}
	return nil
}

// equal compares as JSON does: rendering and merging may differ in types of numbers.
func equal(a, b any) bool {
	if reflect.DeepEqual(a, b) {
		return true
	}
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// children of a map, or of a list whose items have names; nil if there are none
// that can be told apart.
func children(v any) map[string]any {
	if m, ok := v.(map[string]any); ok {
		return m
	}
	list, ok := v.([]any)
	if !ok {
		return nil
	}
	out := map[string]any{}
	for _, item := range list {
		m, _ := item.(map[string]any)
		key, ok := m["mountPath"].(string)
		if !ok {
			if key, ok = m["name"].(string); !ok {
				return nil
			}
		}
		out[key] = m
	}
	return out
}
