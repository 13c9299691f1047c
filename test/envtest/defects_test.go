// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
)

func TestSecondMeshInANamespaceIsRefused(t *testing.T) {
	first := newMesh(t, "owner", v1alpha1.IngressOnly, nil)
	first.holds(v1alpha1.IngressOnly)
	second := newMesh(t, "renter", v1alpha1.IngressOnly, func(s *v1alpha1.MeshTopologySpec) { s.Namespace = first.own })
	second.stalls(v1alpha1.ReasonNamespaceTaken, "MeshTopology owner")
	if list := second.inventory(); slices.ContainsFunc(list, func(id string) bool { return strings.HasPrefix(id, "Deployment") }) {
		t.Errorf("half applied: %v", list)
	}
	first.leavesNothing()
	second.holds(v1alpha1.IngressOnly)
	second.remove()
}

func TestContestedNamespaceIsLeftToWhoHasIt(t *testing.T) {
	first := newMesh(t, "holder", v1alpha1.IngressOnly, nil)
	first.holds(v1alpha1.IngressOnly)
	second := newMesh(t, "claimant", v1alpha1.EgressGateway, func(s *v1alpha1.MeshTopologySpec) {
		s.Members.NamespaceSelectors = []metav1.LabelSelector{{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: "istio.io/rev", Operator: metav1.LabelSelectorOpIn, Values: []string{"holder", "claimant"}},
		}}}
	})
	second.stalls(v1alpha1.ReasonOverlap, first.member)
	leavesOut := func(what string, s func() *metav1.LabelSelector) {
		t.Helper()
		eventually(t, what, func() error {
			for _, e := range s().MatchExpressions {
				if e.Key == corev1.LabelMetadataName && slices.Contains(e.Values, first.member) {
					return nil
				}
			}
			return fmt.Errorf("covers %s", first.member)
		})
	}
	leavesOut("injector", func() *metav1.LabelSelector {
		return read(second, "", "isthmus-injector-claimant", &admissionv1.MutatingWebhookConfiguration{}).Webhooks[0].NamespaceSelector
	})
	leavesOut("guard", func() *metav1.LabelSelector {
		return read(second, "", "isthmus-guard.0-claimant", &admissionv1.ValidatingAdmissionPolicyBinding{}).Spec.MatchResources.NamespaceSelector
	})
	first.leavesNothing()
	second.holds(v1alpha1.EgressGateway)
	read(second, first.member, second.name, &v1alpha1.MeshMember{})
	second.leavesNothing()
}

func TestDeletionRegainsTheRightToDelete(t *testing.T) {
	m := newMesh(t, "rightless", v1alpha1.IngressOnly, nil)
	m.holds(v1alpha1.IngressOnly)
	m.edit(func(s *v1alpha1.MeshTopologySpec) { s.Suspend = true })
	m.condition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSuspended)
	if err := m.admin.Delete(t.Context(), read(m, m.own, "isthmus-operator-"+m.name, &rbacv1.RoleBinding{})); err != nil {
		t.Fatal(err)
	}
	m.leavesNothing()
}

func TestIstioOfSomebodyElseIsNotTouched(t *testing.T) {
	path, port, fails, none := "/inject", int32(443), admissionv1.Ignore, admissionv1.SideEffectClassNone
	theirs := &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "istio-sidecar-injector", Labels: map[string]string{"app": "sidecar-injector"}},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name: "namespace.sidecar-injector.istio.io", AdmissionReviewVersions: []string{"v1"}, SideEffects: &none, FailurePolicy: &fails,
			ClientConfig:      admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{Namespace: "istio-system", Name: "istiod", Path: &path, Port: &port}},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"istio-injection": "enabled"}},
		}},
	}
	if err := shared.admin.Create(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = shared.admin.Delete(context.Background(), theirs) })
	m := newMesh(t, "neighbour", v1alpha1.EgressGateway, nil)
	m.holds(v1alpha1.EgressGateway)
	m.leavesNothing()
	got := read(m, "", theirs.Name, &admissionv1.MutatingWebhookConfiguration{})
	if got.ResourceVersion != theirs.ResourceVersion {
		t.Errorf("their webhook was changed: %v", got.ManagedFields)
	}
}
