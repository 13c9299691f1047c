// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"

	"github.com/isthmus-mesh/isthmus/test/journey"
	"github.com/isthmus-mesh/isthmus/test/kube"
)

// repairTime is what a repair may take on a machine that is busy with other
// things; at rest it is a fraction of a second.
const repairTime = time.Minute

// manager is the field owner that the edits are made as.
const manager = "somebody"

// ownedObjects are all that the topology owns, of whatever kind. What it has made
// but does not own is kept when it goes, and is not repaired: those are named.
func ownedObjects(t *testing.T) kube.Inventory {
	t.Helper()
	all, err := env.Kube.Inventory(t.Context(), "isthmus.dev/topology=default")
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for _, name := range all.Names() {
		if !owned(all[name]) {
			kept = append(kept, name)
			delete(all, name)
		}
	}
	if d := cmp.Diff([]string{"Namespace /isthmus-system", "Secret isthmus-system/isthmus-ca-default"}, kept); d != "" {
		t.Errorf("labelled, and without an owner (-want +got):\n%s", d)
	}
	if len(all) < 20 {
		t.Fatalf("a topology owns more than %v", all.Names())
	}
	return all
}

func owned(o *unstructured.Unstructured) bool {
	for _, r := range o.GetOwnerReferences() {
		if r.Kind == journey.TopologyKind.Kind {
			return true
		}
	}
	return false
}

// hand is what the object is changed with: by the operator's name where nobody else
// may change it.
func hand(t *testing.T, o *unstructured.Unstructured) dynamic.ResourceInterface {
	t.Helper()
	k := env.Kube
	if protected(o) {
		var err error
		if k, err = k.As("system:serviceaccount:" + journey.OperatorNamespace + ":isthmus-operator"); err != nil {
			t.Fatal(err)
		}
	}
	ri, err := k.Resource(t.Context(), o.GroupVersionKind(), o.GetNamespace())
	if err != nil {
		t.Fatal(err)
	}
	return ri
}

// protected tells whether the guard keeps the object to the operator.
func protected(o *unstructured.Unstructured) bool { return o.GetKind() == "NetworkPolicy" }

// untouchable tries to change what the guard keeps to the operator, as somebody who
// may do everything.
func untouchable(t *testing.T) {
	switchTo(t, journey.EgressGateway)
	all := ownedObjects(t)
	for _, name := range all.Names() {
		o := all[name]
		if !protected(o) {
			continue
		}
		ri, err := env.Kube.Resource(t.Context(), o.GroupVersionKind(), o.GetNamespace())
		if err != nil {
			t.Fatal(err)
		}
		dry := []string{metav1.DryRunAll}
		for _, patch := range []string{`{"spec":{"egress":[{}]}}`, `{"spec":{"podSelector":{"matchLabels":{"nobody":""}}}}`, `{"metadata":{"labels":null}}`} {
			_, err := ri.Patch(t.Context(), o.GetName(), types.MergePatchType, []byte(patch), metav1.PatchOptions{DryRun: dry})
			refusedWith(t, name+" "+patch, err, "Policy: ", "edit MeshTopology default")
		}
		err = ri.Delete(t.Context(), o.GetName(), metav1.DeleteOptions{DryRun: dry})
		refusedWith(t, "deleting "+name, err, "Policy: ", "edit MeshTopology default")
	}
}

// refusedWith wants an answer of 403 that says these things.
func refusedWith(t *testing.T, what string, err error, says ...string) {
	t.Helper()
	if !apierrors.IsForbidden(err) {
		t.Errorf("%s: want it forbidden, got: %v", what, err)
		return
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%s: want %q, got: %v", what, s, err)
		}
	}
}

func edited(t *testing.T) {
	switchTo(t, journey.EgressGateway)
	// What is protected goes first: who is the operator is told by other objects.
	eachOwned(t, repairs, protected)
	eachOwned(t, repairs, func(o *unstructured.Unstructured) bool { return !protected(o) })
	switchTo(t, journey.EgressGateway)
}

// eachOwned runs a test on the objects that the topology owns and that it
// concerns, all at once.
func eachOwned(t *testing.T, run func(*testing.T, *unstructured.Unstructured), concerned func(*unstructured.Unstructured) bool) {
	t.Helper()
	all := ownedObjects(t)
	t.Run("each", func(t *testing.T) {
		for _, name := range all.Names() {
			if concerned(all[name]) {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					run(t, all[name])
				})
			}
		}
	})
}

// repairs edits each thing in the object that the operator owns, one at a time,
// and waits until it is as before.
func repairs(t *testing.T, o *unstructured.Unstructured) {
	all, err := kube.Edits(o, operatorManager)
	if err != nil {
		t.Fatal(err)
	}
	ri, done := hand(t, o), 0
	for _, e := range all {
		if repaired(t, ri, o, e) {
			done++
		}
	}
	t.Logf("%d of %d edits were accepted, and repaired", done, len(all))
	if done == 0 {
		t.Errorf("none of %d edits was accepted: %v", len(all), all)
	}
}

// operatorManager is the field owner of what the operator applies.
const operatorManager = "isthmus-operator"

// repaired tells whether the server accepted the edit and kept it; then it waits
// for its end.
func repaired(t *testing.T, ri dynamic.ResourceInterface, o *unstructured.Unstructured, e kube.Edit) bool {
	t.Helper()
	want := essence(o)
	broken, err := ri.Patch(t.Context(), o.GetName(), types.JSONPatchType, e.Patch(), metav1.PatchOptions{FieldManager: manager})
	switch {
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return false
	case err != nil:
		t.Fatalf("%v: %v", e, err)
	case essence(broken) == want:
		return false
	}
	same := func(u *unstructured.Unstructured) string { return cmp.Diff(want, essence(u)) }
	if d := awaitState(t, ri, broken, same); d != "" {
		t.Fatalf("%v: not repaired within %v (-before +after):\n%s", e, repairTime, d)
	}
	return true
}

// awaitState watches an object from the given version on until what tells no
// difference, and returns the last one otherwise.
func awaitState(t *testing.T, ri dynamic.ResourceInterface, from *unstructured.Unstructured, what func(*unstructured.Unstructured) string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), repairTime)
	defer cancel()
	last := "it is not there"
	err := kube.Follow(ctx, ri, from, func(u *unstructured.Unstructured) bool {
		last = "it is not there"
		if u != nil {
			last = what(u)
		}
		return last == ""
	})
	if err != nil && ctx.Err() == nil {
		t.Fatal(err)
	}
	return last
}

func deleted(t *testing.T) {
	switchTo(t, journey.EgressGateway)
	before := ownedObjects(t)
	// Services get new addresses, which are in other objects.
	service := func(o *unstructured.Unstructured) bool { return o.GetKind() == "Service" }
	eachOwned(t, comesBack, func(o *unstructured.Unstructured) bool { return !service(o) })
	switchTo(t, journey.EgressGateway)
	eachOwned(t, comesBack, service)
	sameAgain(t, before)
	switchTo(t, journey.EgressGateway)
}

// anew is what follows from objects that came back: an epoch names the content of a
// configuration, in which addresses are, and pods start anew with their account.
var anew = regexp.MustCompile(`epoch: [0-9a-f]+|service-account-uid": "[0-9a-f-]+`)

// lasting is the essence of what other objects that come back do not change.
func lasting(o *unstructured.Unstructured) string { return anew.ReplaceAllString(essence(o), "") }

// sameAgain waits until the topology owns what it owned before, and all of it is
// as it was, but for the addresses of Services that came anew.
func sameAgain(t *testing.T, before kube.Inventory) {
	t.Helper()
	var diff string
	err := wait.PollUntilContextTimeout(t.Context(), time.Second, repairTime, true, func(context.Context) (bool, error) {
		now := ownedObjects(t)
		var addresses []string
		for name, o := range before {
			if o.GetKind() == "Service" && now[name] != nil {
				addresses = append(addresses, clusterIP(o)+"/", clusterIP(now[name])+"/")
			}
		}
		was, is := map[string]string{}, map[string]string{}
		for name, o := range before {
			was[name] = anew.ReplaceAllString(strings.NewReplacer(addresses...).Replace(essence(o)), "")
		}
		for name, o := range now {
			is[name] = lasting(o)
		}
		diff = cmp.Diff(was, is)
		return diff == "", nil
	})
	if err != nil {
		t.Errorf("what the topology owns (-before +after): %v\n%s", err, diff)
	}
}

func clusterIP(service *unstructured.Unstructured) string {
	ip, _, _ := unstructured.NestedString(service.Object, "spec", "clusterIP")
	return ip
}

func comesBack(t *testing.T, o *unstructured.Unstructured) {
	ri := hand(t, o)
	now, err := ri.Get(t.Context(), o.GetName(), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	background := metav1.DeletePropagationBackground
	if err := ri.Delete(t.Context(), o.GetName(), metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
		t.Fatal(err)
	}
	want := lasting(now)
	d := awaitState(t, ri, now, func(u *unstructured.Unstructured) string {
		if u.GetUID() == now.GetUID() {
			return "it is the one that was deleted"
		}
		return cmp.Diff(want, lasting(u))
	})
	if d != "" {
		t.Fatalf("it did not come back within %v (-before +after):\n%s", repairTime, d)
	}
}

// essence is the content without what is given out anew to each object.
func essence(o *unstructured.Unstructured) string {
	u := &unstructured.Unstructured{Object: kube.Content(o)}
	if u.GetKind() == "Service" {
		for _, f := range []string{"clusterIP", "clusterIPs", "healthCheckNodePort"} {
			unstructured.RemoveNestedField(u.Object, "spec", f)
		}
		ports, _, _ := unstructured.NestedSlice(u.Object, "spec", "ports")
		for _, p := range ports {
			if m, ok := p.(map[string]any); ok {
				delete(m, "nodePort")
			}
		}
		_ = unstructured.SetNestedSlice(u.Object, ports, "spec", "ports")
	}
	b, err := json.MarshalIndent(u.Object, "", " ")
	if err != nil {
		return err.Error()
	}
	return string(b)
}
