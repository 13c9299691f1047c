// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/conditions"
	"github.com/isthmus-mesh/isthmus/internal/inject"
	"github.com/isthmus-mesh/isthmus/internal/operator/apply"
	"github.com/isthmus-mesh/isthmus/internal/operator/guard"
	"github.com/isthmus-mesh/isthmus/internal/operator/membership"
	"github.com/isthmus-mesh/isthmus/internal/operator/policy"
	"github.com/isthmus-mesh/isthmus/internal/operator/revision"
	"github.com/isthmus-mesh/isthmus/internal/operator/transition"
	"github.com/isthmus-mesh/isthmus/internal/pki"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// Facts are what is known of one namespace.
type Facts struct {
	Namespace corev1.Namespace
	// Mesh that has the namespace; nil if none does.
	Mesh *v1alpha1.MeshTopology
	// Had are the MeshMembers found; Member is the mesh's own among them, or nil.
	Had    []v1alpha1.MeshMember
	Member *v1alpha1.MeshMember
	// State and Published are what the mesh's ConfigMap holds.
	State     transition.State
	Published topology.Config
	// Guarded: the mesh's guard over pods and policies is in place.
	Guarded bool
	// Root certificate of the mesh; empty if there is none yet.
	Root string
	Pods []corev1.Pod
	// Foreign NetworkPolicies lie in the namespace; Labels are those of namespaces by
	// name, if there are any.
	Foreign []networkingv1.NetworkPolicy
	Labels  map[string]map[string]string
	// Judge of pods; nil where no wall is to be.
	Judge *guard.Judge
	Now   time.Time
}

// Plan is what must be in the namespace.
type Plan struct {
	Objects []*unstructured.Unstructured
	// Walls: the egress policies are among the objects.
	Walls bool
}

// examples is how many pods without a proxy status names.
const examples = 20

// Stale lists meshes that were here and no longer have the namespace.
func (f *Facts) Stale() []string {
	var out []string
	for _, m := range f.Had {
		if f.Mesh == nil || m.Name != f.Mesh.Name {
			out = append(out, m.Name)
		}
	}
	return out
}

// strayMark tells whether the namespace bears the mark of a mesh that does not have it.
func (f *Facts) strayMark() bool {
	mark := f.Namespace.Labels[v1alpha1.LabelEnforced]
	return mark != "" && (f.Mesh == nil || mark != f.Mesh.Name)
}

// wantedMark is the mark that the namespace should bear. It comes after policies
// and guard, and goes after the guard, which lets nobody in without it.
func (f *Facts) wantedMark(p *Plan) string {
	switch {
	case p.Walls == f.Guarded && p.Walls:
		return f.Mesh.Name
	case p.Walls == f.Guarded:
		return ""
	}
	return f.Namespace.Labels[v1alpha1.LabelEnforced]
}

// Decide plans. It is pure.
func Decide(f *Facts) (*Plan, error) {
	p := &Plan{Objects: []*unstructured.Unstructured{{Object: map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "MeshMember",
		"metadata": map[string]any{"name": f.Mesh.Name, "namespace": f.Namespace.Name},
	}}}}
	if f.Root != "" {
		p.Objects = append(p.Objects, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap",
			"metadata": map[string]any{"name": topology.RootConfigMapName(f.Mesh.Name), "namespace": f.Namespace.Name},
			"data":     map[string]any{pki.KeyRoot: f.Root},
		}})
	}
	if f.State.Walls() && f.walled() {
		p.Walls = true
		ns := policy.Namespace{Name: f.Namespace.Name, Labels: f.Namespace.Labels}
		policies, err := policy.Member(ns, revision.Policy("egress", f.Mesh.Name), f.Published.Allowance)
		if err != nil {
			return nil, err
		}
		for _, np := range policies {
			u, err := apply.Unstructured(np)
			if err != nil {
				return nil, err
			}
			p.Objects = append(p.Objects, u)
		}
	}
	for _, o := range p.Objects {
		f.own(o)
	}
	return p, nil
}

func (f *Facts) own(o *unstructured.Unstructured) {
	o.SetLabels(map[string]string{v1alpha1.LabelTopology: f.Mesh.Name, v1alpha1.LabelComponent: v1alpha1.ComponentMember})
	o.SetOwnerReferences([]metav1.OwnerReference{{
		APIVersion: v1alpha1.GroupVersion.String(), Kind: "MeshTopology", Name: f.Mesh.Name, UID: f.Mesh.UID,
	}})
}

// Status is what is said of the namespace. It is pure.
func Status(f *Facts, p *Plan, failure error) v1alpha1.MeshMemberStatus {
	marked := f.Namespace.Labels[v1alpha1.LabelEnforced] == f.Mesh.Name
	s := v1alpha1.MeshMemberStatus{Epoch: f.Published.Epoch, Enforced: p.Walls && marked && failure == nil}
	count(f, &s)
	f.blocking(&s)
	f.holes(&s)
	ready := conditions.True(v1alpha1.ConditionReady, v1alpha1.ReasonReady, "The namespace has what its pods need.")
	switch {
	case failure != nil:
		ready = conditions.False(v1alpha1.ConditionReady, v1alpha1.ReasonApplyFailed, failure.Error())
		s.Epoch, s.Enforced = f.Member.Status.Epoch, f.Member.Status.Enforced
	case f.Root == "":
		ready = conditions.False(v1alpha1.ConditionReady, v1alpha1.ReasonWaiting, "The mesh has no root certificate yet.")
	}
	applied := conditions.False(v1alpha1.ConditionPolicyApplied, v1alpha1.ReasonNotEnforced, "The mesh asks for no egress policies.")
	if s.Enforced {
		applied = conditions.True(v1alpha1.ConditionPolicyApplied, v1alpha1.ReasonAvailable, "The egress policies stand.")
	}
	s.Conditions = conditions.Merge(f.Member.Status.Conditions,
		conditions.Stamp{Now: metav1.Time{Time: f.Now}, Generation: f.Member.Generation}, ready, applied)
	return s
}

// count counts pods, and those that should carry a proxy and do not: by the same
// decision that the webhook takes.
func count(f *Facts, s *v1alpha1.MeshMemberStatus) {
	injector, err := inject.New(inject.FromTopology(f.Published, nil))
	for i := range f.Pods {
		p := &f.Pods[i]
		if p.Spec.HostNetwork || p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		s.Pods++
		if membership.Injected(p) {
			s.Injected++
			continue
		}
		if err != nil {
			continue // nothing is published yet, so nothing can be missing
		}
		d, err := injector.Decide(inject.Request{Pod: p, Namespace: inject.Namespace{Name: f.Namespace.Name, Labels: f.Namespace.Labels}})
		if err == nil && d.Inject {
			s.MissingCount++
			s.Missing = append(s.Missing, p.Name)
		}
	}
	s.Missing = some(s.Missing)
}
