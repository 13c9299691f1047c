// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/test/kube"
)

const gateway = "ingress-default"

// autoscaler asks for more pods than there are, which needs no metrics.
const autoscaler = `apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: mine, namespace: %s}
spec:
  minReplicas: 2
  maxReplicas: 3
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: %s}
`

// scaled lets Kubernetes' own autoscaler scale a gateway. The operator repairs what
// else changes in the Deployment, and leaves the number of pods to whoever scales.
func scaled(t *testing.T) {
	manifest := fmt.Sprintf(autoscaler, env.Namespace, gateway)
	t.Cleanup(func() {
		if err := env.Kube.Delete(context.WithoutCancel(t.Context()), manifest); err != nil {
			t.Error(err)
		}
		scaleTo(t, 1)
	})
	if err := env.Kube.Apply(t.Context(), manifest); err != nil {
		t.Fatal(err)
	}
	kind := appsv1.SchemeGroupVersion.WithKind("Deployment")
	err := env.Kube.Await(t.Context(), kind, env.Namespace, gateway, settle, func(o *unstructured.Unstructured) (bool, string) {
		asked, _, _ := unstructured.NestedInt64(o.Object, "spec", "replicas")
		ready, _, _ := unstructured.NestedInt64(o.Object, "status", "readyReplicas")
		// A rollout of one pod may have two that are ready.
		return asked == 2 && ready == 2, fmt.Sprintf("%d pods are asked for, %d are ready", asked, ready)
	})
	if err != nil {
		t.Fatal(err)
	}
	ri, err := env.Kube.Resource(t.Context(), kind, env.Namespace)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), repairTime)
	defer cancel()
	// Pods are counted after the rest is written, so the second repair tells of the first.
	for range 2 {
		broken, err := ri.Patch(ctx, gateway, types.MergePatchType, []byte(`{"metadata":{"labels":{"isthmus.dev/topology":"another"}}}`), metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		still := func(o *unstructured.Unstructured) bool {
			if n, _, _ := unstructured.NestedInt64(o.Object, "spec", "replicas"); n != 2 {
				t.Errorf("somebody made of the autoscaler's 2 pods %d", n)
			}
			return o.GetLabels()["isthmus.dev/topology"] == "default"
		}
		still(broken)
		if err := kube.Follow(ctx, ri, broken, still); err != nil {
			t.Fatal(err)
		}
	}
}

// scaleTo scales the gateway as a person does.
func scaleTo(t *testing.T, pods int32) {
	t.Helper()
	s := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: gateway, Namespace: env.Namespace}, Spec: autoscalingv1.ScaleSpec{Replicas: pods}}
	if _, err := env.Kube.Typed.AppsV1().Deployments(env.Namespace).UpdateScale(context.WithoutCancel(t.Context()), gateway, s, metav1.UpdateOptions{}); err != nil {
		t.Error(err)
	}
}
