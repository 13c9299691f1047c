// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package membership decides which namespaces are in which mesh. It is pure.
package membership

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
)

// Labels by which namespaces choose a mesh, as in Istio.
const (
	labelRevision  = "istio.io/rev"
	labelInjection = "istio-injection"
)

// Selectors are the mesh's member selectors: spec's, or the default ones.
func Selectors(m *v1alpha1.MeshTopology) []metav1.LabelSelector {
	if s := m.Spec.Members.NamespaceSelectors; len(s) > 0 {
		return s
	}
	out := []metav1.LabelSelector{{MatchLabels: map[string]string{labelRevision: m.Name}}}
	if m.Name == "default" {
		out = append(out, metav1.LabelSelector{MatchLabels: map[string]string{labelInjection: "enabled"}})
	}
	return out
}

// Never lists the namespaces that are in no mesh, besides kube-*: the operator's
// and the control planes'.
func Never(operator string, meshes []v1alpha1.MeshTopology) []string {
	out := []string{operator}
	for i := range meshes {
		out = append(out, meshes[i].Spec.Namespace)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Without is the selector less the namespaces that are in no mesh, for where a
// selector alone decides.
func Without(s metav1.LabelSelector, never []string) *metav1.LabelSelector {
	out := s.DeepCopy()
	out.MatchExpressions = append(out.MatchExpressions, metav1.LabelSelectorRequirement{
		Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpNotIn,
		Values: append([]string{"kube-node-lease", "kube-public", "kube-system"}, never...),
	})
	return out
}

// Selected tells whether the mesh's selectors cover the namespace, whoever else's
// do. Namespaces that are being deleted are in no mesh.
func Selected(m *v1alpha1.MeshTopology, ns *corev1.Namespace, never []string) (bool, error) {
	if strings.HasPrefix(ns.Name, "kube-") || slices.Contains(never, ns.Name) || ns.DeletionTimestamp != nil {
		return false, nil
	}
	selectors := Selectors(m)
	for i := range selectors {
		s, err := metav1.LabelSelectorAsSelector(&selectors[i])
		if err != nil {
			return false, fmt.Errorf("member selector %d of %s: %w", i, m.Name, err)
		}
		if s.Matches(labels.Set(ns.Labels)) {
			return true, nil
		}
	}
	return false, nil
}

// Owner picks, of the meshes that select a namespace, the one that has it: the one
// that had it first, else the oldest. It returns nil if there is none.
func Owner(selecting []*v1alpha1.MeshTopology, had []v1alpha1.MeshMember) *v1alpha1.MeshTopology {
	if len(selecting) == 0 {
		return nil
	}
	since := func(m *v1alpha1.MeshTopology) (metav1.Time, bool) {
		i := slices.IndexFunc(had, func(h v1alpha1.MeshMember) bool { return h.Name == m.Name })
		if i < 0 {
			return m.CreationTimestamp, false
		}
		return had[i].CreationTimestamp, true
	}
	return slices.MinFunc(selecting, func(a, b *v1alpha1.MeshTopology) int {
		ta, hasA := since(a)
		tb, hasB := since(b)
		switch {
		case hasA != hasB && hasA:
			return -1
		case hasA != hasB:
			return 1
		}
		return cmp.Or(ta.Compare(tb.Time), cmp.Compare(a.Name, b.Name))
	})
}

// Resolve tells which namespaces the mesh has, and which it selects but another
// mesh has. The meshes are all there are, itself included.
func Resolve(m *v1alpha1.MeshTopology, meshes []v1alpha1.MeshTopology, namespaces []corev1.Namespace, members []v1alpha1.MeshMember, never []string) (own []corev1.Namespace, contested []string, err error) {
	had := map[string][]v1alpha1.MeshMember{}
	for _, h := range members {
		had[h.Namespace] = append(had[h.Namespace], h)
	}
	for i := range namespaces {
		ns := &namespaces[i]
		selected, err := Selected(m, ns, never)
		if err != nil {
			return nil, nil, err
		}
		if !selected {
			continue
		}
		selecting := []*v1alpha1.MeshTopology{m}
		for j := range meshes {
			// An unreadable selector of another mesh is that mesh's problem.
			if ok, err := Selected(&meshes[j], ns, never); err == nil && ok && meshes[j].Name != m.Name && meshes[j].DeletionTimestamp == nil {
				selecting = append(selecting, &meshes[j])
			}
		}
		if Owner(selecting, had[ns.Name]).Name == m.Name {
			own = append(own, *ns)
		} else {
			contested = append(contested, ns.Name)
		}
	}
	slices.Sort(contested)
	return own, contested, nil
}

// ProxyContainer is the name of the proxy in an injected pod.
const ProxyContainer = "istio-proxy"

// Injected tells whether the pod carries a proxy, as a native sidecar or beside
// the application.
func Injected(p *corev1.Pod) bool {
	isProxy := func(c corev1.Container) bool { return c.Name == ProxyContainer }
	return slices.ContainsFunc(p.Spec.InitContainers, isProxy) || slices.ContainsFunc(p.Spec.Containers, isProxy)
}
