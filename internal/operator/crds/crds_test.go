// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package crds

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestEmbeddedCRDsHoldWhatIsRequired(t *testing.T) {
	objects, version, err := Istio()
	if err != nil {
		t.Fatal(err)
	}
	if older(version, "v1.0.0") {
		t.Errorf("version %q", version)
	}
	for _, name := range Required() {
		if !slices.ContainsFunc(objects, func(o *unstructured.Unstructured) bool { return o.GetName() == name }) {
			t.Errorf("%s is not embedded", name)
		}
	}
}

func desired(group, name string, versions ...string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"group": group}}}
	u.SetName(name)
	var list []any
	for _, v := range versions {
		list = append(list, map[string]any{"name": v})
	}
	if err := unstructured.SetNestedSlice(u.Object, list, "spec", "versions"); err != nil {
		panic(err)
	}
	return u
}

func live(group, name, ours string, stored ...string) apiextensions.CustomResourceDefinition {
	c := apiextensions.CustomResourceDefinition{}
	c.Name, c.Spec.Group, c.Status.StoredVersions = name, group, stored
	if ours != "" {
		c.Labels = map[string]string{labelOwned: "istio"}
		c.Annotations = map[string]string{annotationVersion: ours}
	}
	return c
}

func TestChoose(t *testing.T) {
	want := []*unstructured.Unstructured{desired("net", "a.net", "v1"), desired("net", "b.net", "v1"), desired("sec", "c.sec", "v1")}
	tests := map[string]struct {
		mode Mode
		live []apiextensions.CustomResourceDefinition
		want []string
	}{
		"an empty cluster gets all":                   {mode: IfAbsent, want: []string{"a.net", "b.net", "c.sec"}},
		"a group that somebody else began is left":    {mode: IfAbsent, live: []apiextensions.CustomResourceDefinition{live("net", "a.net", "")}, want: []string{"c.sec"}},
		"a group that we began is completed":          {mode: IfAbsent, live: []apiextensions.CustomResourceDefinition{live("net", "a.net", "v1.30.0")}, want: []string{"b.net", "c.sec"}},
		"Manage updates ours":                         {mode: Manage, live: []apiextensions.CustomResourceDefinition{live("net", "a.net", "v1.30.0", "v1")}, want: []string{"a.net", "b.net", "c.sec"}},
		"Manage leaves those of others":               {mode: Manage, live: []apiextensions.CustomResourceDefinition{live("net", "a.net", "", "v1")}, want: []string{"c.sec"}},
		"Manage never lowers a version":               {mode: Manage, live: []apiextensions.CustomResourceDefinition{live("net", "a.net", "v1.40.0", "v1")}, want: []string{"b.net", "c.sec"}},
		"Manage never drops a version that is stored": {mode: Manage, live: []apiextensions.CustomResourceDefinition{live("net", "a.net", "v1.30.0", "v1alpha3")}, want: []string{"b.net", "c.sec"}},
		"what is current is left":                     {mode: Manage, live: []apiextensions.CustomResourceDefinition{live("net", "a.net", "v1.31.1", "v1")}, want: []string{"b.net", "c.sec"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, d := range choose(tt.mode, "v1.31.1", want, tt.live) {
				got = append(got, d.GetName())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
