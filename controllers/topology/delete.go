// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/operator/apply"
	"github.com/isthmus-mesh/isthmus/internal/operator/reconcile"
	"github.com/isthmus-mesh/isthmus/internal/operator/revision"
	"github.com/isthmus-mesh/isthmus/internal/operator/transition"
	mesh "github.com/isthmus-mesh/isthmus/internal/topology"
)

// components are what this controller applies, less the ground.
var components = []string{
	v1alpha1.ComponentControlPlane, v1alpha1.ComponentIngressGateway, v1alpha1.ComponentEgressGateway,
	v1alpha1.ComponentDestination, v1alpha1.ComponentNetworkPolicy, v1alpha1.ComponentGuard,
}

// Kinds that this controller applies in the topology's namespace, and cluster-wide.
var (
	namespacedKinds = []schema.GroupVersionKind{
		{Group: "apps", Version: "v1", Kind: "Deployment"},
		{Group: "autoscaling", Version: "v2", Kind: "HorizontalPodAutoscaler"},
		{Group: "policy", Version: "v1", Kind: "PodDisruptionBudget"},
		{Version: "v1", Kind: "Service"},
		{Version: "v1", Kind: "ServiceAccount"},
		{Version: "v1", Kind: "ConfigMap"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "RoleBinding"},
		{Group: "networking.k8s.io", Version: "v1", Kind: "NetworkPolicy"},
		serviceEntryKind,
	}
	clusterKinds = []schema.GroupVersionKind{
		{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "ClusterRoleBinding"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "ValidatingAdmissionPolicyBinding"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "ValidatingAdmissionPolicy"},
	}
	webhookKinds = []schema.GroupVersionKind{
		{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "MutatingWebhookConfiguration"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "ValidatingWebhookConfiguration"},
	}
	serviceEntryKind = schema.GroupVersionKind{Group: "networking.istio.io", Version: "v1", Kind: "ServiceEntry"}
	secretKind       = schema.GroupVersionKind{Version: "v1", Kind: "Secret"}
	configMapKind    = schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}
	namespaceKind    = schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}
	bindingKind      = schema.GroupVersionKind{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "RoleBinding"}
)

// pruneComponents removes the objects of components but those to keep.
func (r *Reconciler) pruneComponents(ctx context.Context, f *Facts, keep map[apply.Ref]bool, names ...string) (changes []apply.Change, remaining []apply.Ref, err error) {
	in, err := componentSelector(f.Mesh.Name, names)
	if err != nil {
		return nil, nil, err
	}
	for _, scope := range []struct {
		kinds []schema.GroupVersionKind
		opts  []client.ListOption
	}{
		{namespacedKinds, []client.ListOption{in, client.InNamespace(f.Mesh.Spec.Namespace)}},
		{clusterKinds, []client.ListOption{in}},
	} {
		done, left, err := r.Applier.Prune(ctx, scope.kinds, keep, scope.opts...)
		changes, remaining = append(changes, done...), append(remaining, left...)
		if err != nil {
			return changes, remaining, err
		}
	}
	return changes, remaining, nil
}

// departure is one step of deletion; it is repeated until it has nothing to wait for.
type departure struct {
	name string
	do   func(*Reconciler, context.Context, *Facts) error
}

// departures in order: guard and webhooks first, so that pods can start again; then what
// holds traffic back; then routes, and only then what they led through.
var departures = []departure{
	{"access", (*Reconciler).regainAccess},
	{"guard", (*Reconciler).removeGuard},
	{"webhooks", (*Reconciler).removeWebhooks},
	{"members", (*Reconciler).awaitMembers},
	{"routes", (*Reconciler).relaxRoutes},
	{"gateways", (*Reconciler).removeGateways},
	{"control plane", (*Reconciler).removeControlPlane},
	{"trust", (*Reconciler).removeTrust},
	{"ground", (*Reconciler).removeGround},
}

// delete removes everything that the topology made, but what spec.uninstall keeps.
func (r *Reconciler) delete(ctx context.Context, f *Facts) error {
	if !controllerutil.ContainsFinalizer(f.Mesh, v1alpha1.Finalizer) {
		return nil
	}
	for _, d := range departures {
		if err := d.do(r, ctx, f); err != nil {
			p := &Plan{Accepted: accept(f), State: f.State, Departing: d.name + ": " + err.Error()}
			if reported := r.report(ctx, f, p, err); reported != nil {
				return reported
			}
			return fmt.Errorf("remove %s: %w", d.name, err)
		}
	}
	controllerutil.RemoveFinalizer(f.Mesh, v1alpha1.Finalizer)
	return r.patchFinalizers(ctx, f.Mesh)
}

// regainAccess writes the operator's binding anew if somebody took it away while
// there is still something that only it lets the operator remove.
func (r *Reconciler) regainAccess(ctx context.Context, f *Facts) error {
	if f.Parts.Namespace == nil || f.Parts.Namespace.DeletionTimestamp != nil {
		return nil
	}
	granted, err := r.Access.Granted(ctx, f.Mesh.Spec.Namespace)
	if err != nil || granted {
		return err
	}
	in, err := componentSelector(f.Mesh.Name, components)
	if err != nil {
		return err
	}
	left, err := r.Applier.Count(ctx, namespacedKinds, in, client.InNamespace(f.Mesh.Spec.Namespace))
	if err != nil || left == 0 && f.Trust.Root == "" {
		return err
	}
	changes, err := r.Applier.Apply(ctx, f.access()...)
	logChanges(ctx, changes)
	if err != nil {
		return err
	}
	return r.granted(ctx, f)
}

func (r *Reconciler) removeGuard(ctx context.Context, f *Facts) error {
	return r.remove(ctx, f, v1alpha1.ComponentGuard)
}

func (r *Reconciler) removeWebhooks(ctx context.Context, f *Facts) error {
	changes, _, err := r.Applier.Prune(ctx, webhookKinds, nil, labelled(f.Mesh.Name, v1alpha1.ComponentWebhook))
	logChanges(ctx, changes)
	return err
}

// awaitMembers waits for the member controller, which cleans up each namespace and
// removes its MeshMember last.
func (r *Reconciler) awaitMembers(ctx context.Context, f *Facts) error {
	changes, _, err := r.pruneComponents(ctx, f, nil, v1alpha1.ComponentNetworkPolicy)
	logChanges(ctx, changes)
	if err != nil {
		return err
	}
	if left := f.Members.Objects; len(left) > 0 {
		var names []string
		for _, m := range left {
			names = append(names, m.Namespace)
		}
		slices.Sort(names)
		return reconcile.Wait(poll, "namespaces to be left: %s", some(names))
	}
	return nil
}

// relaxing is how long proxies get to follow the last routes before what they led
// through is removed all the same.
const relaxing = 20 * time.Second

// relaxRoutes publishes routes that need nothing of the mesh's own, so that pods
// that still carry a proxy keep working without a control plane.
func (r *Reconciler) relaxRoutes(ctx context.Context, f *Facts) error {
	if f.Published.Epoch == "" || !available(f.Parts.ControlPlane) || f.Now.Sub(f.Mesh.DeletionTimestamp.Time) > relaxing {
		return nil
	}
	loose := f.Mesh.DeepCopy()
	loose.Spec.Egress.Policy = v1alpha1.AllowAny
	g := *f
	g.Mesh = loose
	s := transition.State{Active: v1alpha1.IngressOnly, Target: v1alpha1.IngressOnly}
	config, err := g.config(s)
	if err != nil {
		return err
	}
	if f.Published.Epoch == config.Epoch {
		if f.Distribution.Acknowledged() {
			return nil
		}
		return reconcile.Wait(poll, "proxies to follow the last routes")
	}
	s.Epoch = config.Epoch
	data, err := g.data(s, config)
	if err != nil {
		return err
	}
	cm := object("v1", "ConfigMap", f.Mesh.Spec.Namespace, mesh.ConfigMapName(f.Mesh.Name))
	cm.Object["data"] = data
	if _, err := r.Applier.Apply(ctx, g.own(v1alpha1.ComponentControlPlane, cm)...); err != nil {
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		return err
	}
	return reconcile.Wait(poll/2, "proxies to follow the last routes")
}

func (r *Reconciler) removeGateways(ctx context.Context, f *Facts) error {
	return r.remove(ctx, f, v1alpha1.ComponentIngressGateway, v1alpha1.ComponentEgressGateway, v1alpha1.ComponentDestination)
}

func (r *Reconciler) removeControlPlane(ctx context.Context, f *Facts) error {
	return r.remove(ctx, f, v1alpha1.ComponentControlPlane)
}

func (r *Reconciler) remove(ctx context.Context, f *Facts, names ...string) error {
	changes, remaining, err := r.pruneComponents(ctx, f, nil, names...)
	logChanges(ctx, changes)
	if err == nil && len(remaining) > 0 {
		return reconcile.Wait(poll/4, "these to go: %s", some(refs(remaining)))
	}
	return err
}

// refs names objects, sorted.
func refs(list []apply.Ref) []string {
	var out []string
	for _, r := range list {
		out = append(out, r.String())
	}
	slices.Sort(out)
	return out
}

// removeTrust removes the root's ConfigMap and, if asked to, the signing key. On a
// second pass the right to touch Secrets may be gone with its binding, and then so
// is the Secret.
func (r *Reconciler) removeTrust(ctx context.Context, f *Facts) error {
	in := func(kind schema.GroupVersionKind, name string) apply.Ref {
		return apply.Ref{GVK: kind, NamespacedName: types.NamespacedName{Namespace: f.Mesh.Spec.Namespace, Name: name}}
	}
	changes, err := r.Applier.Delete(ctx, in(configMapKind, mesh.RootConfigMapName(f.Mesh.Name)))
	logChanges(ctx, changes)
	if err != nil || f.Mesh.Spec.Uninstall.CA != v1alpha1.Delete {
		return err
	}
	if granted, err := r.Access.Granted(ctx, f.Mesh.Spec.Namespace); err != nil || !granted {
		return err
	}
	changes, err = r.Applier.Delete(ctx, in(secretKind, revision.CASecret(f.Mesh.Name)))
	logChanges(ctx, changes)
	return err
}

func (r *Reconciler) removeGround(ctx context.Context, f *Facts) error {
	binding := apply.Ref{GVK: bindingKind, NamespacedName: types.NamespacedName{Namespace: f.Mesh.Spec.Namespace, Name: revision.Access(f.Mesh.Name)}}
	changes, err := r.Applier.Delete(ctx, binding)
	logChanges(ctx, changes)
	if err != nil {
		return err
	}
	if !f.takesNamespace() {
		return nil
	}
	changes, err = r.Applier.Delete(ctx, apply.Ref{GVK: namespaceKind, NamespacedName: types.NamespacedName{Name: f.Mesh.Spec.Namespace}})
	logChanges(ctx, changes)
	return err
}

// takesNamespace tells whether the namespace goes too: if the operator made it, it
// is asked to, and no other topology lives there.
func (f *Facts) takesNamespace() bool {
	made := f.Parts.Namespace != nil && f.Parts.Namespace.Labels[v1alpha1.LabelTopology] == f.Mesh.Name
	shared := slices.ContainsFunc(f.Others, func(m v1alpha1.MeshTopology) bool { return m.Spec.Namespace == f.Mesh.Spec.Namespace })
	return made && !shared && f.Mesh.Spec.Uninstall.Namespace == v1alpha1.Delete
}
