// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
)

// patch changes an object as a person would.
func (m *mesh) patch(o client.Object, text string) {
	m.t.Helper()
	if err := m.admin.Patch(m.t.Context(), o, client.RawPatch(types.MergePatchType, []byte(text)), client.FieldOwner("person")); err != nil {
		m.t.Fatalf("patch %T %s: %v", o, o.GetName(), err)
	}
}

func TestDriftIsRepaired(t *testing.T) {
	m := newMesh(t, "drift", v1alpha1.EgressGateway, nil)
	m.holds(v1alpha1.EgressGateway)
	inventory := m.inventory()
	t.Run("a field that is changed", func(t *testing.T) {
		s := read(m, m.own, "isthmusd-"+m.name, &corev1.Service{})
		want := s.Spec.Selector["app"]
		m.patch(s, `{"spec":{"selector":{"app":"other"}}}`)
		eventually(t, "selector", func() error {
			if got := read(m, m.own, s.Name, &corev1.Service{}).Spec.Selector["app"]; got != want {
				return fmt.Errorf("selects %q", got)
			}
			return nil
		})
	})
	t.Run("a wall that is opened", func(t *testing.T) {
		np := read(m, m.member, "isthmus-egress-"+m.name, &networkingv1.NetworkPolicy{})
		want := len(np.Spec.Egress)
		opening := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"egress":[{}]}}`))
		eventually(t, "refusal", func() error {
			if err := m.admin.Patch(t.Context(), np.DeepCopy(), opening, client.DryRunAll); err == nil || !strings.Contains(err.Error(), "Policy: ") {
				return fmt.Errorf("says %w", err)
			}
			return nil
		})
		// By somebody whom the guard takes for the operator.
		if err := as(t, operatorUser).Patch(t.Context(), np, opening, client.FieldOwner("person")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "rules", func() error {
			if got := read(m, m.member, np.Name, &networkingv1.NetworkPolicy{}).Spec.Egress; len(got) != want {
				return fmt.Errorf("%d rules", len(got))
			}
			return nil
		})
	})
	t.Run("objects that are deleted", func(t *testing.T) {
		for _, o := range []client.Object{
			read(m, m.own, "egress-"+m.name, &appsv1.Deployment{}),
			read(m, m.own, "isthmusd-"+m.name, &corev1.ServiceAccount{}),
			read(m, m.member, "isthmus-ca-root-"+m.name, &corev1.ConfigMap{}),
			read(m, m.member, m.name, &v1alpha1.MeshMember{}),
		} {
			if err := m.admin.Delete(t.Context(), o); err != nil {
				t.Fatal(err)
			}
		}
		m.has(inventory)
	})
	t.Run("a field of somebody else's stays", func(t *testing.T) {
		s := read(m, m.own, "ingress-"+m.name, &corev1.Service{})
		m.patch(s, `{"metadata":{"annotations":{"theirs":"yes"}}}`)
		m.holds(v1alpha1.EgressGateway)
		m.restsWithoutWrites()
		if got := read(m, m.own, s.Name, &corev1.Service{}).Annotations["theirs"]; got != "yes" {
			t.Error("another's annotation is gone")
		}
	})
	m.leavesNothing()
}

func TestReplicasBelongToWhoScales(t *testing.T) {
	m := newMesh(t, "scale", v1alpha1.IngressOnly, func(s *v1alpha1.MeshTopologySpec) {
		s.ControlPlane.Workload.Replicas = v1alpha1.Replicas{Min: 2, Max: new(int32(5))}
	})
	m.holds(v1alpha1.IngressOnly)
	replicas := func(name string, want int32) {
		t.Helper()
		eventually(t, "replicas of "+name, func() error {
			if got := *read(m, m.own, name, &appsv1.Deployment{}).Spec.Replicas; got != want {
				return fmt.Errorf("%d, not %d", got, want)
			}
			return nil
		})
	}
	scale := func(name string, to int32) {
		t.Helper()
		d := read(m, m.own, name, &appsv1.Deployment{})
		s := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: to}}
		if err := m.admin.SubResource("scale").Update(t.Context(), d, client.WithSubResourceBody(s)); err != nil {
			t.Fatal(err)
		}
	}
	gateway, isthmusd := "ingress-"+m.name, "isthmusd-"+m.name+"-0-1-0"
	replicas(gateway, 1)
	replicas(isthmusd, 2)
	for _, id := range []string{"HorizontalPodAutoscaler own/" + isthmusd, "PodDisruptionBudget own/" + isthmusd} {
		if !slices.Contains(m.inventory(), id) {
			t.Errorf("%s is missing", id)
		}
	}
	scale(gateway, 3)
	scale(isthmusd, 4)
	m.restsWithoutWrites()
	m.repairs(gateway)
	m.restsWithoutWrites()
	replicas(gateway, 3)
	replicas(isthmusd, 4)
	m.edit(func(s *v1alpha1.MeshTopologySpec) {
		s.Ingress.Gateways[0].Workload.Replicas = v1alpha1.Replicas{Min: 2}
	})
	replicas(gateway, 2)
	replicas(isthmusd, 4)
	m.leavesNothing()
}

// repairs takes a label from a Deployment and waits until it is back.
func (m *mesh) repairs(name string) {
	m.t.Helper()
	d := read(m, m.own, name, &appsv1.Deployment{})
	was := d.DeepCopy()
	d.Labels[v1alpha1.LabelTopology] = "another"
	if err := m.admin.Patch(m.t.Context(), d, client.MergeFrom(was)); err != nil {
		m.t.Fatal(err)
	}
	eventually(m.t, "label of "+name, func() error {
		if got := read(m, m.own, name, &appsv1.Deployment{}).Labels[v1alpha1.LabelTopology]; got != m.name {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})
}

func TestSuspendedTopologyIsLeftAlone(t *testing.T) {
	m := newMesh(t, "suspend", v1alpha1.IngressOnly, nil)
	m.holds(v1alpha1.IngressOnly)
	m.edit(func(s *v1alpha1.MeshTopologySpec) { s.Suspend = true })
	m.condition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSuspended)
	s := read(m, m.own, "ingress-"+m.name, &corev1.Service{})
	if err := m.admin.Delete(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	m.restsWithoutWrites()
	if slices.Contains(m.inventory(), "Service own/ingress-"+m.name) {
		t.Error("the Service came back")
	}
	m.edit(func(s *v1alpha1.MeshTopologySpec) { s.Suspend = false })
	m.has(always(m.name))
	m.edit(func(s *v1alpha1.MeshTopologySpec) { s.Suspend = true })
	m.leavesNothing()
}

func TestNamespaceOfTwoTopologiesStaysWithTheFirst(t *testing.T) {
	first := newMesh(t, "first", v1alpha1.IngressOnly, nil)
	first.holds(v1alpha1.IngressOnly)
	second := newMesh(t, "second", v1alpha1.IngressOnly, func(s *v1alpha1.MeshTopologySpec) {
		s.Members.NamespaceSelectors = []metav1.LabelSelector{
			{MatchLabels: map[string]string{"istio.io/rev": "first"}}, {MatchLabels: map[string]string{"istio.io/rev": "second"}},
		}
	})
	second.condition(v1alpha1.ConditionMembersResolved, metav1.ConditionFalse, v1alpha1.ReasonOverlap)
	second.condition(v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonOverlap)
	second.has(always(second.name)) // everything else goes on
	first.has(always(first.name))
	first.leavesNothing()
	second.holds(v1alpha1.IngressOnly)
	read(second, first.member, second.name, &v1alpha1.MeshMember{})
	second.leavesNothing()
}

func TestNamespaceThatLeavesTheMesh(t *testing.T) {
	m := newMesh(t, "leave", v1alpha1.EgressGateway, nil)
	m.holds(v1alpha1.EgressGateway)
	m.patch(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: m.member}}, `{"metadata":{"labels":{"istio.io/rev":null}}}`)
	eventually(t, "leaving", func() error {
		for _, id := range m.inventory() {
			if slices.Contains([]string{
				"MeshMember member/" + m.name, "NetworkPolicy member/isthmus-egress-" + m.name, "ConfigMap member/isthmus-ca-root-" + m.name,
			}, id) {
				return fmt.Errorf("%s is still there", id)
			}
		}
		return nil
	})
	m.condition(v1alpha1.ConditionMembersResolved, metav1.ConditionTrue, v1alpha1.ReasonNoMembers)
	m.leavesNothing()
}

func TestCAOutlivesTheTopologyUnlessAsked(t *testing.T) {
	m := newMesh(t, "trust", v1alpha1.IngressOnly, nil)
	m.holds(v1alpha1.IngressOnly)
	fingerprint := m.get().Status.CA.Fingerprint
	m.leavesNothing()
	m.create(&v1alpha1.MeshTopology{
		ObjectMeta: metav1.ObjectMeta{Name: m.name},
		Spec: v1alpha1.MeshTopologySpec{
			Topology: v1alpha1.IngressOnly, Namespace: m.own, Uninstall: v1alpha1.Uninstall{CA: v1alpha1.Delete},
			Ingress: v1alpha1.Ingress{Gateways: []v1alpha1.IngressGateway{}},
		},
	})
	m.holds(v1alpha1.IngressOnly)
	if got := m.get().Status.CA.Fingerprint; got != fingerprint || got == "" {
		t.Errorf("the CA was %q and is %q", fingerprint, got)
	}
	m.remove()
	m.has([]string{})
}

func TestNamespaceOfSomebodyElseIsNotTouched(t *testing.T) {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "mesh-foreign", Labels: map[string]string{"theirs": "yes"}}}
	if err := shared.admin.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	m := newMesh(t, "foreign", v1alpha1.IngressOnly, func(s *v1alpha1.MeshTopologySpec) { s.Uninstall.Namespace = v1alpha1.Delete })
	m.holds(v1alpha1.IngressOnly)
	m.leavesNothing()
	got := read(m, "", ns.Name, &corev1.Namespace{})
	if got.DeletionTimestamp != nil || got.ResourceVersion != ns.ResourceVersion {
		t.Errorf("the namespace was changed: %v", got.ObjectMeta)
	}
}

func TestPatchesAreLaidOverObjects(t *testing.T) {
	patch := func(spec string) []v1alpha1.Patch {
		return []v1alpha1.Patch{{Name: "edge", Target: v1alpha1.PatchTarget{Kind: "Deployment", Part: "ingress"},
			Merge: v1alpha1.PatchBody{Spec: &runtime.RawExtension{Raw: []byte(spec)}}}}
	}
	const seconds = `{"template":{"spec":{"terminationGracePeriodSeconds":7}}}`
	m := newMesh(t, "patched", v1alpha1.IngressOnly, func(s *v1alpha1.MeshTopologySpec) { s.Patches = patch(seconds) })
	m.holds(v1alpha1.IngressOnly)
	pod := func() corev1.PodSpec {
		return read(m, m.own, "ingress-"+m.name, &appsv1.Deployment{}).Spec.Template.Spec
	}
	if got := *pod().TerminationGracePeriodSeconds; got != 7 {
		t.Errorf("%d seconds", got)
	}
	m.restsWithoutWrites()
	m.edit(func(s *v1alpha1.MeshTopologySpec) { s.Patches = patch(`{"template":{"spec":{"hostNetwork":true}}}`) })
	m.stalls(v1alpha1.ReasonInvalid, "patches edge: spec.template.spec.hostNetwork cannot be patched")
	if got := pod(); got.HostNetwork || *got.TerminationGracePeriodSeconds != 7 {
		t.Errorf("half applied: %+v", got)
	}
	m.edit(func(s *v1alpha1.MeshTopologySpec) { s.Patches = nil })
	m.holds(v1alpha1.IngressOnly)
	if got := *pod().TerminationGracePeriodSeconds; got != 60 {
		t.Errorf("%d seconds without a patch", got)
	}
	m.leavesNothing()
}
