// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package membership_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/operator/membership"
)

func mesh(name string, minute int, selectors ...metav1.LabelSelector) *v1alpha1.MeshTopology {
	m := &v1alpha1.MeshTopology{}
	m.Name = name
	m.CreationTimestamp = metav1.NewTime(time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC))
	m.Spec.Namespace = "isthmus-system"
	m.Spec.Members.NamespaceSelectors = selectors
	return m
}

func TestSelected(t *testing.T) {
	gone := metav1.Now()
	tests := map[string]struct {
		mesh      *v1alpha1.MeshTopology
		namespace string
		labels    map[string]string
		deleted   *metav1.Time
		want      bool
		wantErr   bool
	}{
		"the name as revision":              {mesh: mesh("blue", 0), namespace: "a", labels: map[string]string{"istio.io/rev": "blue"}, want: true},
		"another revision":                  {mesh: mesh("blue", 0), namespace: "a", labels: map[string]string{"istio.io/rev": "green"}},
		"injection enabled, for default":    {mesh: mesh("default", 0), namespace: "a", labels: map[string]string{"istio-injection": "enabled"}, want: true},
		"injection enabled, for another":    {mesh: mesh("blue", 0), namespace: "a", labels: map[string]string{"istio-injection": "enabled"}},
		"a selector of the spec":            {mesh: mesh("blue", 0, metav1.LabelSelector{MatchLabels: map[string]string{"team": "a"}}), namespace: "a", labels: map[string]string{"team": "a"}, want: true},
		"selectors replace the default":     {mesh: mesh("blue", 0, metav1.LabelSelector{MatchLabels: map[string]string{"team": "a"}}), namespace: "a", labels: map[string]string{"istio.io/rev": "blue"}},
		"the control plane's own":           {mesh: mesh("blue", 0), namespace: "isthmus-system", labels: map[string]string{"istio.io/rev": "blue"}},
		"the operator's own":                {mesh: mesh("blue", 0), namespace: "isthmus-operator", labels: map[string]string{"istio.io/rev": "blue"}},
		"the cluster's own":                 {mesh: mesh("blue", 0), namespace: "kube-system", labels: map[string]string{"istio.io/rev": "blue"}},
		"a namespace that is being deleted": {mesh: mesh("blue", 0), namespace: "a", labels: map[string]string{"istio.io/rev": "blue"}, deleted: &gone},
		"a selector that cannot be read": {mesh: mesh("blue", 0, metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}),
			namespace: "a", wantErr: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: tt.namespace, Labels: tt.labels, DeletionTimestamp: tt.deleted}}
			never := membership.Never("isthmus-operator", []v1alpha1.MeshTopology{*tt.mesh})
			got, err := membership.Selected(tt.mesh, ns, never)
			if (err != nil) != tt.wantErr || got != tt.want {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestOwner(t *testing.T) {
	old, young := mesh("old", 1), mesh("young", 2)
	had := func(name string, minute int) v1alpha1.MeshMember {
		m := v1alpha1.MeshMember{}
		m.Name = name
		m.CreationTimestamp = metav1.NewTime(time.Date(2026, 1, 2, 0, minute, 0, 0, time.UTC))
		return m
	}
	tests := map[string]struct {
		selecting []*v1alpha1.MeshTopology
		had       []v1alpha1.MeshMember
		want      string
	}{
		"nobody":                              {},
		"the only one":                        {selecting: []*v1alpha1.MeshTopology{young}, want: "young"},
		"the oldest, when nobody had it":      {selecting: []*v1alpha1.MeshTopology{young, old}, want: "old"},
		"the one that had it, though younger": {selecting: []*v1alpha1.MeshTopology{old, young}, had: []v1alpha1.MeshMember{had("young", 1)}, want: "young"},
		"the one that had it first":           {selecting: []*v1alpha1.MeshTopology{old, young}, had: []v1alpha1.MeshMember{had("old", 2), had("young", 1)}, want: "young"},
		"not one that had it and lets it go":  {selecting: []*v1alpha1.MeshTopology{old}, had: []v1alpha1.MeshMember{had("young", 1)}, want: "old"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := ""
			if m := membership.Owner(tt.selecting, tt.had); m != nil {
				got = m.Name
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
