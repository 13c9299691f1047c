// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/test/journey"
	"github.com/isthmus-mesh/isthmus/test/kube"
)

// removeTopology deletes the one object. The cluster is as it was before that came,
// but for the users' own objects and what spec.uninstall keeps by default; pods
// start again without a mesh, and nothing holds them.
func removeTopology(t *testing.T) {
	ri, err := env.Kube.Resource(t.Context(), journey.TopologyKind, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := ri.Delete(t.Context(), "default", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := env.Kube.AwaitGone(t.Context(), journey.TopologyKind, "", "default", 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := env.Kube.AwaitNone(t.Context(), "isthmus-system", "isthmus.dev/topology=default", time.Minute); err != nil {
		t.Error(err)
	}
	awaitDifferences(t, past.installed, slices.Concat(users(t), keptByTopology, keptKinds(t, past.installed)))

	old, err := env.Pod(t.Context(), journey.Shop, "client")
	if err != nil {
		t.Fatal(err)
	}
	if err := env.Kube.Typed.CoreV1().Pods(journey.Shop).Delete(t.Context(), old.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := env.Kube.PodsReady(t.Context(), journey.Shop, time.Minute); err != nil {
		t.Fatal(err)
	}
	r, err := env.Call(t.Context(), journey.Shop, "client", "http", "http://other.outside.test/")
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != 200 {
		t.Errorf("a pod without a mesh calls any host: %s", r)
	}
}

// keptByTopology is what deleting a topology leaves: its CA, and the namespace with
// what Kubernetes puts into each.
var keptByTopology = []string{
	"came: Namespace /isthmus-system",
	"came: ServiceAccount isthmus-system/default",
	"came: ConfigMap isthmus-system/kube-root-ca.crt",
	"came: Secret isthmus-system/isthmus-ca-default",
}

// removeOperator takes away what installed it, as Helm does: what says that it is
// to be kept stays.
func removeOperator(t *testing.T) {
	manifest, err := env.OperatorManifest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	objects, err := kube.Parse(manifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range slices.Backward(objects) {
		if o.GetAnnotations()["helm.sh/resource-policy"] == "keep" {
			continue
		}
		ri, err := env.Kube.Resource(t.Context(), o.GroupVersionKind(), o.GetNamespace())
		if err != nil {
			t.Fatal(err)
		}
		if err := ri.Delete(t.Context(), o.GetName(), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Fatalf("delete %s: %v", kube.Name(o), err)
		}
	}
	awaitDifferences(t, past.bare, slices.Concat(users(t), keptByTopology, keptKinds(t, past.bare)))
}

// keptKinds are the CRDs that came since, and what the API server makes for each
// group of them: they hold users' objects.
func keptKinds(t *testing.T, before kube.Inventory) []string {
	t.Helper()
	now, err := env.Kube.Inventory(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, name := range now.Names() {
		o := now[name]
		kind := o.GetKind() == "CustomResourceDefinition"
		group := o.GetKind() == "APIService" && o.GetLabels()["kube-aggregator.kubernetes.io/automanaged"] == "true"
		known := strings.HasSuffix(name, ".istio.io") || strings.HasSuffix(name, ".isthmus.dev")
		if before[name] == nil && known && (kind || group) {
			out = append(out, "came: "+name)
		}
	}
	return out
}

// users are the objects of the cast, which came after the topology, less the
// namespaces, which were there before.
func users(t *testing.T) []string {
	t.Helper()
	objects, err := kube.Parse(env.Outside.Scene().Manifest())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, o := range objects {
		if o.GetKind() != "Namespace" {
			out = append(out, "came: "+kube.Name(o))
		}
	}
	return out
}

func awaitDifferences(t *testing.T, before kube.Inventory, want []string) {
	t.Helper()
	slices.Sort(want)
	d, err := env.Kube.AwaitDifferences(t.Context(), before, want, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if d != "" {
		t.Errorf("the cluster differs from before (-want +got):\n%s", d)
	}
}
