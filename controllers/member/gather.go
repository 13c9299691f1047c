// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"context"
	"errors"
	"fmt"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/operator/guard"
	"github.com/isthmus-mesh/isthmus/internal/operator/membership"
	outcome "github.com/isthmus-mesh/isthmus/internal/operator/reconcile"
	"github.com/isthmus-mesh/isthmus/internal/operator/transition"
	"github.com/isthmus-mesh/isthmus/internal/pki"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// gather reads the facts about a namespace; nil if it is gone.
func (r *Reconciler) gather(ctx context.Context, name string) (*Facts, error) {
	f := &Facts{Now: r.Clock()}
	if err := r.Client.Get(ctx, client.ObjectKey{Name: name}, &f.Namespace); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	var meshes v1alpha1.MeshTopologyList
	if err := r.Client.List(ctx, &meshes); err != nil {
		return nil, fmt.Errorf("list MeshTopologies: %w", err)
	}
	var members v1alpha1.MeshMemberList
	if err := r.Client.List(ctx, &members, client.InNamespace(name)); err != nil {
		return nil, fmt.Errorf("list MeshMembers: %w", err)
	}
	f.Had = members.Items
	never := membership.Never(r.OperatorNamespace, meshes.Items)
	var selecting []*v1alpha1.MeshTopology
	for i := range meshes.Items {
		m := &meshes.Items[i]
		// An unreadable selector is told on the MeshTopology; it selects nothing.
		if ok, err := membership.Selected(m, &f.Namespace, never); err == nil && ok && m.DeletionTimestamp == nil {
			selecting = append(selecting, m)
		}
	}
	f.Mesh = membership.Owner(selecting, f.Had)
	if f.Mesh == nil {
		return f, nil
	}
	for i := range f.Had {
		if f.Had[i].Name == f.Mesh.Name {
			f.Member = &f.Had[i]
		}
	}
	return f, r.gatherMesh(ctx, f)
}

// gatherMesh reads what the namespace's mesh says, and the pods.
func (r *Reconciler) gatherMesh(ctx context.Context, f *Facts) error {
	read := func(name string) (map[string]string, error) {
		var cm corev1.ConfigMap
		err := r.Client.Get(ctx, client.ObjectKey{Namespace: f.Mesh.Spec.Namespace, Name: name}, &cm)
		return cm.Data, client.IgnoreNotFound(err)
	}
	data, err := read(topology.ConfigMapName(f.Mesh.Name))
	if err != nil {
		return fmt.Errorf("read the mesh's configuration: %w", err)
	}
	if data == nil {
		lost, err := r.lost(ctx, f)
		if err != nil {
			return err
		}
		if lost {
			return outcome.Wait(outcome.Resync, "the mesh's configuration, which is lost and watched")
		}
	}
	if f.Published, f.State, err = published(data); err != nil {
		return fmt.Errorf("the mesh's configuration: %w", err)
	}
	if data, err = read(topology.RootConfigMapName(f.Mesh.Name)); err != nil {
		return fmt.Errorf("read the mesh's root: %w", err)
	}
	f.Root = data[pki.KeyRoot]
	if f.Guarded, err = r.guarded(ctx, f.Mesh); err != nil {
		return err
	}
	var pods corev1.PodList
	if err := r.Client.List(ctx, &pods, client.InNamespace(f.Namespace.Name)); err != nil {
		return fmt.Errorf("list Pods: %w", err)
	}
	f.Pods = pods.Items
	if !f.walled() {
		return nil
	}
	if f.Judge, err = r.judges.of(f); err != nil {
		return fmt.Errorf("the guard: %w", err)
	}
	return r.gatherPolicies(ctx, f)
}

// lost tells whether the namespace shows that the mesh had a configuration: its
// MeshMember says so, or walls stand, where the MeshMember was lost as well.
func (r *Reconciler) lost(ctx context.Context, f *Facts) (bool, error) {
	if f.Member != nil && f.Member.Status.Epoch != "" {
		return true, nil
	}
	var walls networkingv1.NetworkPolicyList
	if err := r.Client.List(ctx, &walls, inMember(f.Namespace.Name, f.Mesh.Name)...); err != nil {
		return false, fmt.Errorf("list NetworkPolicies: %w", err)
	}
	return len(walls.Items) > 0, nil
}

// gatherPolicies reads the NetworkPolicies of others, and what they can select.
func (r *Reconciler) gatherPolicies(ctx context.Context, f *Facts) error {
	var policies networkingv1.NetworkPolicyList
	if err := r.Client.List(ctx, &policies, client.InNamespace(f.Namespace.Name)); err != nil {
		return fmt.Errorf("list NetworkPolicies: %w", err)
	}
	for _, p := range policies.Items {
		if p.Labels[v1alpha1.LabelTopology] == "" || p.Labels[v1alpha1.LabelComponent] != v1alpha1.ComponentMember {
			f.Foreign = append(f.Foreign, p)
		}
	}
	if len(f.Foreign) == 0 {
		return nil
	}
	var namespaces corev1.NamespaceList
	if err := r.Client.List(ctx, &namespaces); err != nil {
		return fmt.Errorf("list Namespaces: %w", err)
	}
	f.Labels = map[string]map[string]string{}
	for _, ns := range namespaces.Items {
		f.Labels[ns.Name] = ns.Labels
	}
	return nil
}

// guarded tells whether the mesh's guard is in place, to its last binding.
func (r *Reconciler) guarded(ctx context.Context, m *v1alpha1.MeshTopology) (bool, error) {
	var b admissionv1.ValidatingAdmissionPolicyBinding
	err := r.Client.Get(ctx, client.ObjectKey{Name: guard.Last(m.Name, m.Spec.Egress.Guard.Mode, len(membership.Selectors(m)))}, &b)
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("read the guard's binding: %w", err)
	}
	return err == nil, nil
}

// published reads the content of the mesh's ConfigMap; none is a mesh of which
// nothing was published yet. What cannot be read is an error, and what is lost is
// waited for, so that policies stay as they are until then: taken for nothing, it
// would open them.
func published(data map[string]string) (c topology.Config, s transition.State, err error) {
	if c, err = topology.Parse(data[topology.ConfigKey]); err != nil {
		return c, s, err
	}
	if s, err = transition.Parse(data[topology.StateKey]); err != nil {
		return c, s, err
	}
	if s.Walls() && c.Epoch == "" {
		return c, s, errors.New("the state is there without what was published")
	}
	return c, s, nil
}
