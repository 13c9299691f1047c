// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/operator/distribution"
	"github.com/isthmus-mesh/isthmus/internal/operator/transition"
)

func TestWhatIsAcceptedBesidesTheSpec(t *testing.T) {
	older := v1alpha1.MeshTopology{ObjectMeta: metav1.ObjectMeta{Name: "first", CreationTimestamp: metav1.Unix(1, 0)}}
	older.Spec.Namespace = "isthmus-system"
	younger := older
	younger.Name, younger.CreationTimestamp = "second", metav1.Unix(9, 0)
	elsewhere := older
	elsewhere.Spec.Namespace = "other"
	tests := map[string]struct {
		change     func(*Facts)
		wantReason string
	}{
		"a version that runs, after the operator's upgrade": {func(f *Facts) { f.Mesh.Status.Version = "0.0.9" }, ""},
		"a version that runs, and is asked for":             {func(f *Facts) { f.Mesh.Status.Version, f.Mesh.Spec.Version = "0.0.9", "0.0.9" }, ""},
		"a version that neither runs nor can be installed":  {func(f *Facts) { f.Mesh.Spec.Version = "9.9.9" }, v1alpha1.ReasonUnsupportedVersion},
		"a namespace that another mesh had first":           {func(f *Facts) { f.Others = []v1alpha1.MeshTopology{older} }, v1alpha1.ReasonNamespaceTaken},
		"a namespace that another mesh asks for later":      {func(f *Facts) { f.Others = []v1alpha1.MeshTopology{younger} }, ""},
		"another mesh in another namespace":                 {func(f *Facts) { f.Others = []v1alpha1.MeshTopology{elsewhere} }, ""},
		"an unsupported version does not become what runs":  {func(f *Facts) { f.Mesh.Spec.Version = "9.9.9"; f.Mesh.Status = statusOf(f) }, v1alpha1.ReasonUnsupportedVersion},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := testFacts(v1alpha1.IngressOnly)
			f.Mesh.CreationTimestamp = metav1.Unix(5, 0)
			tt.change(f)
			c := accept(f)
			if refused := c.Status != metav1.ConditionTrue; refused != (tt.wantReason != "") || refused && c.Reason != tt.wantReason {
				t.Errorf("want %q, got %+v", tt.wantReason, c)
			}
		})
	}
}

func statusOf(f *Facts) v1alpha1.MeshTopologyStatus {
	p, err := Decide(f)
	if err != nil {
		panic(err)
	}
	return Status(f, p, nil)
}

func TestSuspendedMeshSaysWhatIsSoAndNoMore(t *testing.T) {
	f := testFacts(v1alpha1.IngressOnly)
	f.Mesh.Spec.Suspend, f.Mesh.Spec.Topology = true, v1alpha1.EgressGateway
	s := statusOf(f)
	if s.Transition != nil || s.Topology != v1alpha1.IngressOnly {
		t.Errorf("tells of a transition that nobody makes: %+v, topology %s", s.Transition, s.Topology)
	}
	for _, c := range s.Conditions {
		switch {
		case c.Type == v1alpha1.ConditionReady && (c.Status != metav1.ConditionFalse || c.Reason != v1alpha1.ReasonSuspended || !strings.Contains(c.Message, "EgressGateway is asked for")),
			c.Type == v1alpha1.ConditionReconciling && c.Status != metav1.ConditionFalse:
			t.Errorf("%+v", c)
		}
	}
}

func TestProxiesThatLagAreNamedAndThenAPersonsBusiness(t *testing.T) {
	f := testFacts(v1alpha1.IngressOnly)
	f.Mesh.Spec.Topology = v1alpha1.SidecarEgress
	f.State = transition.State{Active: v1alpha1.IngressOnly, Target: v1alpha1.SidecarEgress, Phase: v1alpha1.PhaseRouting}
	p, err := Decide(f)
	if err != nil {
		t.Fatal(err)
	}
	f.State, f.Published = p.State, p.Config
	f.Distribution.Expected = []distribution.Proxy{{Namespace: "shop", Name: "stuck"}}
	f.Distribution.Lagging = f.Distribution.Expected
	f.Mesh.Status = statusOf(f)
	stalled := func() *metav1.Condition {
		for _, c := range statusOf(f).Conditions {
			if c.Type == v1alpha1.ConditionStalled {
				return &c
			}
		}
		return nil
	}
	if got := f.Mesh.Status.Transition.Message; !strings.Contains(got, "shop/stuck") {
		t.Errorf("the message names nobody: %s", got)
	}
	if c := stalled(); c.Status != metav1.ConditionFalse {
		t.Errorf("stalled at once: %+v", c)
	}
	f.Now = f.Now.Add(patience + time.Second)
	if c := stalled(); c.Status != metav1.ConditionTrue || c.Reason != v1alpha1.ReasonLagging || !strings.Contains(c.Message, "shop/stuck") {
		t.Errorf("not stalled in the end: %+v", c)
	}
}

func TestTopologyThatHeldIsShownOnTheWayBack(t *testing.T) {
	o := transition.Observed{}
	s := transition.Next(transition.State{Active: v1alpha1.IngressOnly, Target: v1alpha1.IngressOnly}, v1alpha1.EgressGateway, o)
	for _, want := range []v1alpha1.TopologyKind{v1alpha1.IngressOnly, v1alpha1.EgressGateway, v1alpha1.IngressOnly} {
		s = transition.Next(s, want, o)
		if s.Holds() != v1alpha1.IngressOnly {
			t.Errorf("towards %s: %s is said to hold in %+v", want, s.Holds(), s)
		}
	}
}
