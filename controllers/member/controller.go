// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package member keeps what a mesh has in each member namespace: a MeshMember for
// its owners to read, the root certificate, and in topology EgressGateway the
// NetworkPolicies. Its key is the namespace. What to write comes from the
// ConfigMap that isthmusd reads too, so that policies and proxies agree.
package member

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/operator/apply"
	outcome "github.com/isthmus-mesh/isthmus/internal/operator/reconcile"
)

// Reconciler keeps member namespaces.
type Reconciler struct {
	Client  client.Client
	Applier *apply.Applier
	// OperatorNamespace is in no mesh.
	OperatorNamespace string
	Clock             func() time.Time

	judges judges
}

// SetupWithManager watches namespaces, what lies in them, and what all depend on.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	own := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: o.GetNamespace()}}}
	})
	all := outcome.Every(r.Client, &corev1.NamespaceList{})
	return ctrl.NewControllerManagedBy(mgr).Named("member").
		For(&corev1.Namespace{}).
		Watches(&v1alpha1.MeshTopology{}, all, builder.WithPredicates(outcome.SpecChanged())).
		Watches(&corev1.ConfigMap{}, all, builder.WithPredicates(outcome.Component(v1alpha1.ComponentControlPlane, v1alpha1.ComponentTrust))).
		Watches(&corev1.ConfigMap{}, own, builder.WithPredicates(outcome.Component(v1alpha1.ComponentMember))).
		Watches(&networkingv1.NetworkPolicy{}, own).
		Watches(&v1alpha1.MeshMember{}, own).
		Watches(&admissionv1.ValidatingAdmissionPolicyBinding{}, all, builder.WithPredicates(outcome.Component(v1alpha1.ComponentGuard), outcome.ComesOrGoes())).
		Watches(&corev1.Pod{}, own).
		Complete(r)
}

// Reconcile brings one namespace to what its mesh, if any, asks for.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	facts, err := r.gather(ctx, req.Name)
	if err != nil {
		return outcome.Result(err)
	}
	if facts == nil {
		return ctrl.Result{}, nil
	}
	if facts.strayMark() {
		if err := r.mark(ctx, facts, ""); err != nil {
			return outcome.Result(err)
		}
	}
	for _, stale := range facts.Stale() {
		if err := r.leave(ctx, req.Name, stale); err != nil {
			return outcome.Result(err)
		}
	}
	if facts.Mesh == nil {
		return ctrl.Result{}, nil
	}
	plan, err := Decide(facts)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("plan: %w", err)
	}
	err = r.act(ctx, facts, plan)
	return outcome.Result(errors.Join(err, r.report(ctx, facts, plan, err)))
}

// memberKinds are what lies in a member namespace besides the MeshMember.
var memberKinds = []schema.GroupVersionKind{
	{Group: "networking.k8s.io", Version: "v1", Kind: "NetworkPolicy"},
	{Version: "v1", Kind: "ConfigMap"},
}

func (r *Reconciler) act(ctx context.Context, f *Facts, p *Plan) error {
	if f.Mesh.Spec.Suspend {
		return nil
	}
	changes, err := r.Applier.Apply(ctx, p.Objects...)
	if err != nil {
		// A namespace on its way out takes nothing in.
		return ignoreTerminating(err)
	}
	keep := map[apply.Ref]bool{}
	for _, o := range p.Objects {
		keep[apply.RefOf(o)] = true
	}
	pruned, _, err := r.Applier.Prune(ctx, memberKinds, keep, inMember(f.Namespace.Name, f.Mesh.Name)...)
	for _, c := range append(changes, pruned...) {
		log.FromContext(ctx).Info(string(c.Action), "object", c.Ref.String())
	}
	if err != nil {
		return err
	}
	return r.mark(ctx, f, f.wantedMark(p))
}

// mark writes or removes the label by which the guard lets pods into the namespace.
// It is a patch of that one field: the namespace is somebody else's.
func (r *Reconciler) mark(ctx context.Context, f *Facts, value string) error {
	if f.Namespace.Labels[v1alpha1.LabelEnforced] == value {
		return nil
	}
	var written any = value
	if value == "" {
		written = nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": f.Namespace.UID, "labels": map[string]any{v1alpha1.LabelEnforced: written},
	}})
	if err != nil {
		return fmt.Errorf("mark the namespace: %w", err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: f.Namespace.Name}}
	if err := r.Client.Patch(ctx, ns, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(apply.Manager)); err != nil {
		return fmt.Errorf("mark Namespace %s: %w", f.Namespace.Name, client.IgnoreNotFound(err))
	}
	log.FromContext(ctx).Info("marked", "namespace", f.Namespace.Name, v1alpha1.LabelEnforced, value)
	return nil
}

// leave removes a mesh's part from a namespace, the MeshMember last.
func (r *Reconciler) leave(ctx context.Context, namespace, name string) error {
	_, remaining, err := r.Applier.Prune(ctx, memberKinds, nil, inMember(namespace, name)...)
	if err != nil {
		return err
	}
	if len(remaining) > 0 {
		return outcome.Wait(200*time.Millisecond, "%d objects to go", len(remaining))
	}
	_, err = r.Applier.Delete(ctx, apply.Ref{
		GVK:            v1alpha1.GroupVersion.WithKind("MeshMember"),
		NamespacedName: types.NamespacedName{Namespace: namespace, Name: name},
	})
	return err
}

func (r *Reconciler) report(ctx context.Context, f *Facts, p *Plan, failure error) error {
	if f.Member == nil {
		return nil // its creation comes back here
	}
	status := Status(f, p, failure)
	if equality.Semantic.DeepEqual(status, f.Member.Status) {
		return nil
	}
	before := f.Member.DeepCopy()
	after := f.Member.DeepCopy()
	after.Status = status
	if err := r.Client.Status().Patch(ctx, after, client.MergeFrom(before), client.FieldOwner(apply.Manager)); err != nil {
		return fmt.Errorf("write status of MeshMember: %w", client.IgnoreNotFound(ignoreTerminating(err)))
	}
	return nil
}

func ignoreTerminating(err error) error {
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	return err
}

func inMember(namespace, name string) []client.ListOption {
	return []client.ListOption{client.InNamespace(namespace), client.MatchingLabels{
		v1alpha1.LabelTopology: name, v1alpha1.LabelComponent: v1alpha1.ComponentMember,
	}}
}
