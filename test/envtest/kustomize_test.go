// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envtest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/isthmus-mesh/isthmus/charts"
	"github.com/isthmus-mesh/isthmus/internal/render"
)

// TestKustomizeMakesWhatTheChartMakes builds config/default as its users do. Only
// Helm is told to keep the CRDs: kustomize removes nothing.
func TestKustomizeMakesWhatTheChartMakes(t *testing.T) {
	objects, err := render.Chart(charts.FS, charts.Operator, render.Release{Name: "isthmus", Namespace: "isthmus-operator"},
		map[string]any{"createNamespace": true})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		notes := o.GetAnnotations()
		delete(notes, "helm.sh/resource-policy")
		o.SetAnnotations(notes)
	}
	if diff := cmp.Diff(byName(objects), byName(kustomized(t))); diff != "" {
		t.Errorf("-chart +kustomize:\n%s", diff)
	}
}

func byName(objects []*unstructured.Unstructured) map[string]*unstructured.Unstructured {
	out := map[string]*unstructured.Unstructured{}
	for _, o := range objects {
		out[o.GetKind()+" "+o.GetNamespace()+"/"+o.GetName()] = o
	}
	return out
}

func kustomized(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	text, err := exec.CommandContext(t.Context(), filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"), "kustomize", "../../config/default").Output()
	if err != nil {
		t.Fatal(err)
	}
	var out []*unstructured.Unstructured
	for d := yaml.NewYAMLToJSONDecoder(bytes.NewReader(text)); ; {
		o := &unstructured.Unstructured{}
		err := d.Decode(&o.Object)
		switch {
		case errors.Is(err, io.EOF):
			return out
		case err != nil:
			t.Fatal(err)
		}
		out = append(out, o)
	}
}
