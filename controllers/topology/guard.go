// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/operator/apply"
	"github.com/isthmus-mesh/isthmus/internal/operator/guard"
	"github.com/isthmus-mesh/isthmus/internal/operator/membership"
	mesh "github.com/isthmus-mesh/isthmus/internal/topology"
)

// guard is what keeps pods and NetworkPolicies of members from opening the wall.
func (f *Facts) guard(c mesh.Config) ([]*unstructured.Unstructured, error) {
	facts, err := guard.New(guard.Facts{
		Topology: f.Mesh.Name, Revision: c.Revision, Namespace: c.Namespace, Operator: f.Settings.User(),
		Members: f.memberPeers(), Peers: f.tenantPeers(), Spec: f.Mesh.Spec.Egress.Guard, Now: f.Now,
	}, c)
	if err != nil {
		return nil, err
	}
	var out []*unstructured.Unstructured
	for _, o := range guard.Objects(facts) {
		u, err := apply.Unstructured(o)
		if err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	return f.own(v1alpha1.ComponentGuard, out...), nil
}

// tenantPeers are the selectors that tenants have to write to name members: word
// for word, unless one of them covers a namespace that is no member.
func (f *Facts) tenantPeers() []metav1.LabelSelector {
	whole := f.memberPeers()
	var out []metav1.LabelSelector
	for i, s := range membership.Selectors(f.Mesh) {
		if slices.Contains(f.Members.Marked, i) {
			s = whole[i]
		}
		out = append(out, s)
	}
	return out
}

// nextExpiry is how long the first of the exemptions still holds; 0 if none does.
func (f *Facts) nextExpiry() time.Duration {
	var first time.Duration
	for _, e := range f.Mesh.Spec.Egress.Guard.Exemptions {
		if left := e.Expires.Sub(f.Now); left > 0 && (first == 0 || left < first) {
			first = left
		}
	}
	return first
}
