// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/test/journey"
)

// TestRemoval comes last: it takes away what the journeys stood on. Deleting the
// one object leaves the CA and the namespace, as spec.uninstall says by default,
// and nothing else; pods start again without a mesh, and nothing holds them.
func TestRemoval(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	ri, err := env.Kube.Resource(ctx, journey.TopologyKind, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := ri.Delete(ctx, "default", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := env.Kube.AwaitGone(ctx, journey.TopologyKind, "", "default", time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := env.Kube.AwaitNone(ctx, "isthmus-system", "isthmus.dev/topology=default", time.Minute); err != nil {
		t.Error(err)
	}
	left, err := env.Kube.Labelled(ctx, "isthmus.dev/topology=default")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"Namespace /isthmus-system", "Secret isthmus-system/isthmus-ca-default"}, left); d != "" {
		t.Errorf("what is left (-want +got):\n%s", d)
	}

	old, err := env.Pod(ctx, journey.Shop, "client")
	if err != nil {
		t.Fatal(err)
	}
	if err := env.Kube.Typed.CoreV1().Pods(journey.Shop).Delete(ctx, old.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := env.Kube.PodsReady(ctx, journey.Shop, time.Minute); err != nil {
		t.Fatal(err)
	}
	r, err := env.Call(ctx, journey.Shop, "client", "http", "http://other.outside.test/")
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != 200 {
		t.Errorf("a pod without a mesh calls any host: %s", r)
	}
}
