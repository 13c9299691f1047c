// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envtest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/operator/crds"
)

// TestNothingIsWrittenInAMinuteOfRest has an API server of its own, where a mesh of
// each topology rests while the other tests run: a mesh that others come and go
// beside has something to write.
func TestNothingIsWrittenInAMinuteOfRest(t *testing.T) {
	env := &envtest.Environment{}
	config, err := env.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
	theirs := somebodysIstio(t, config)
	ctx, stop := context.WithCancel(context.Background())
	w, wait, err := start(ctx, config)
	if err != nil {
		stop()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		if err := wait(); err != nil {
			t.Error(err)
		}
	})
	var last *mesh
	for name, kind := range map[string]v1alpha1.TopologyKind{
		"calm-in": v1alpha1.IngressOnly, "calm-car": v1alpha1.SidecarEgress, "calm-gw": v1alpha1.EgressGateway,
	} {
		last = newMeshIn(w, t, name, kind, nil)
		last.holds(kind)
	}
	last.restsWithoutWrites()
	since, versions, writes := time.Now(), w.versions(t), len(w.requests.written())
	t.Parallel() // until the others are done
	select {
	case <-time.After(time.Until(since.Add(time.Minute))):
	case <-t.Context().Done():
	}
	if written := w.requests.written()[writes:]; len(written) > 0 {
		t.Errorf("%d requests to write in %s: %q", len(written), time.Since(since), written)
	}
	if diff := cmp.Diff(versions, w.versions(t)); diff != "" {
		t.Errorf("changed in %s (-before +after):\n%s", time.Since(since), diff)
	}
	essence := func(u *unstructured.Unstructured) []any {
		return []any{u.GetGeneration(), u.GetLabels(), u.GetAnnotations(), u.Object["spec"]}
	}
	for _, was := range theirs {
		is := read(last, "", was.GetName(), was.DeepCopy())
		if diff := cmp.Diff(essence(was), essence(is)); diff != "" {
			t.Errorf("somebody else's CRD %s was changed (-before +after):\n%s", was.GetName(), diff)
		}
	}
}

// somebodysIstio installs Istio's CRDs as somebody else does, before there is an
// operator.
func somebodysIstio(t *testing.T, config *rest.Config) []*unstructured.Unstructured {
	t.Helper()
	admin, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	all, _, err := crds.Istio()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range all {
		k.SetLabels(map[string]string{"app.kubernetes.io/managed-by": "Helm"})
		if err := admin.Create(t.Context(), k, client.FieldOwner("helm")); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// versions are the resourceVersions of all objects of all meshes, and of what is
// said of them.
func (w *world) versions(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, k := range append(kinds, v1alpha1.GroupVersion.WithKind("MeshTopology"), corev1.SchemeGroupVersion.WithKind("Namespace"), corev1.SchemeGroupVersion.WithKind("Event")) {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(k.GroupVersion().WithKind(k.Kind + "List"))
		if err := w.admin.List(t.Context(), list); err != nil {
			t.Fatalf("list %s: %v", k.Kind, err)
		}
		for _, o := range list.Items {
			if strings.Contains(o.GetNamespace()+"/"+o.GetName(), "calm-") {
				out[k.Kind+" "+o.GetNamespace()+"/"+o.GetName()] = o.GetResourceVersion()
			}
		}
	}
	if len(out) < 3*len(always("")) {
		t.Fatalf("only %d objects: %v", len(out), out)
	}
	return out
}
