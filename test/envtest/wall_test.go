// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
)

// message is what a condition says.
func (m *mesh) message(kind string) string {
	if c := meta.FindStatusCondition(m.get().Status.Conditions, kind); c != nil {
		return c.Message
	}
	return ""
}

// stalls waits until the mesh is stalled for a reason, and says these words.
func (m *mesh) stalls(reason string, words ...string) {
	m.t.Helper()
	m.condition(v1alpha1.ConditionStalled, metav1.ConditionTrue, reason)
	got := m.message(v1alpha1.ConditionStalled)
	for _, w := range words {
		if !strings.Contains(got, w) {
			m.t.Errorf("%q is not in %q", w, got)
		}
	}
	eventually(m.t, "kstatus", func() error { return m.kstatus(status.FailedStatus) })
}

func TestWallWaitsForPodsThatItWouldCut(t *testing.T) {
	m := newMesh(t, "blocked", v1alpha1.EgressGateway, func(s *v1alpha1.MeshTopologySpec) {
		pods(t, "member-blocked")
		s.Egress.Guard.Exemptions = []v1alpha1.Exemption{{
			Name: "node", Namespace: "member-blocked", ServiceAccount: "default", Allow: []v1alpha1.GuardRule{v1alpha1.RuleHostNetwork},
			Reason: "test", Expires: metav1.Unix(4102444800, 0),
		}}
	})
	m.stalls(v1alpha1.ReasonUninjected, "member-blocked/opted-out: no proxy, OptOut", "member-blocked/without: no proxy")
	if got := m.message(v1alpha1.ConditionStalled); strings.Contains(got, "/host") || strings.Contains(got, "/with:") {
		t.Errorf("names pods that are exempt or in order: %s", got)
	}
	if list := m.inventory(); slices.ContainsFunc(list, func(id string) bool { return strings.HasPrefix(id, "NetworkPolicy") }) {
		t.Errorf("the wall is up: %v", list)
	}
	m.edit(func(s *v1alpha1.MeshTopologySpec) { s.Transition.Uninjected = v1alpha1.UninjectedCut })
	m.holds(v1alpha1.EgressGateway)
	e := m.get().Status.Egress
	if e == nil || e.BlockingCount != 2 || len(e.Exemptions) != 1 || !e.Exemptions[0].Active {
		t.Errorf("status says %+v", e)
	}
	m.restsWithoutWrites()
	m.leavesNothing()
}

func TestWallWaitsForPoliciesThatWouldOpenIt(t *testing.T) {
	hole := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "member-holes", Name: "theirs"},
		Spec:       networkingv1.NetworkPolicySpec{Egress: []networkingv1.NetworkPolicyEgressRule{{}}},
	}
	m := newMesh(t, "holes", v1alpha1.EgressGateway, func(*v1alpha1.MeshTopologySpec) {
		if err := shared.admin.Create(t.Context(), hole); err != nil {
			t.Fatal(err)
		}
	})
	m.stalls(v1alpha1.ReasonPolicyHole, "member-holes/theirs: rule 1: everything")
	if err := m.admin.Delete(t.Context(), hole); err != nil {
		t.Fatal(err)
	}
	m.holds(v1alpha1.EgressGateway)
	t.Run("a hole that is made all the same", func(t *testing.T) {
		again := hole.DeepCopy()
		again.ResourceVersion = ""
		if err := as(t, operatorUser).Create(t.Context(), again); err != nil {
			t.Fatal(err)
		}
		m.condition(v1alpha1.ConditionEgressEnforced, metav1.ConditionFalse, v1alpha1.ReasonPolicyHole)
		m.condition(v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonPolicyHole)
		if err := m.admin.Delete(t.Context(), again); err != nil {
			t.Fatal(err)
		}
		m.holds(v1alpha1.EgressGateway)
		m.condition(v1alpha1.ConditionEgressEnforced, metav1.ConditionUnknown, v1alpha1.ReasonNotMeasured)
	})
	m.leavesNothing()
}

func TestNamespaceIsMarkedWhileItsWallStands(t *testing.T) {
	m := newMesh(t, "marked", v1alpha1.EgressGateway, nil)
	mark := func(want string) {
		t.Helper()
		eventually(t, "mark", func() error {
			if got := read(m, "", m.member, &corev1.Namespace{}).Labels[v1alpha1.LabelEnforced]; got != want {
				return fmt.Errorf("%q, not %q", got, want)
			}
			return nil
		})
	}
	m.holds(v1alpha1.EgressGateway)
	mark(m.name)
	m.edit(func(s *v1alpha1.MeshTopologySpec) { s.Topology = v1alpha1.SidecarEgress })
	m.holds(v1alpha1.SidecarEgress)
	mark("")
	t.Run("a mark that was there before the mesh", func(t *testing.T) {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "born-marked", Labels: map[string]string{v1alpha1.LabelEnforced: "nobody"}}}
		if err := m.admin.Create(t.Context(), ns); err != nil {
			t.Fatal(err)
		}
		eventually(t, "mark", func() error {
			if got := read(m, "", ns.Name, &corev1.Namespace{}).Labels[v1alpha1.LabelEnforced]; got != "" {
				return fmt.Errorf("%q is still there", got)
			}
			return nil
		})
	})
	m.edit(func(s *v1alpha1.MeshTopologySpec) { s.Topology = v1alpha1.EgressGateway })
	m.holds(v1alpha1.EgressGateway)
	mark(m.name)
	t.Run("a mark that is taken away by force", func(t *testing.T) {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: m.member}}
		patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"metadata":{"labels":{%q:null}}}`, v1alpha1.LabelEnforced))
		if err := as(t, operatorUser).Patch(t.Context(), ns, patch); err != nil {
			t.Fatal(err)
		}
		mark(m.name)
	})
	m.leavesNothing()
	mark("")
}
