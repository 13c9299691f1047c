// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package topology reconciles MeshTopology: it gathers facts, decides what must be
// so, brings it about and says how it is. It is the only writer of MeshTopology's
// status. Certificates, member namespaces and webhooks are other controllers';
// what those find is read from the objects they keep.
//
//	gather ─► Decide (pure) ─► act ─► Status (pure) ─► one write
package topology

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/conditions"
	"github.com/isthmus-mesh/isthmus/internal/operator/apply"
	"github.com/isthmus-mesh/isthmus/internal/operator/distribution"
	"github.com/isthmus-mesh/isthmus/internal/operator/reconcile"
)

// Asker tells how far an epoch got.
type Asker interface {
	Ask(ctx context.Context, of distribution.ControlPlane, epoch string) (distribution.Report, error)
}

// Access tells whether the operator may already work in a namespace; the API
// server learns of a new binding a moment after it was written.
type Access interface {
	Granted(ctx context.Context, namespace string) (bool, error)
}

// Reconciler reconciles MeshTopology.
type Reconciler struct {
	Settings Settings
	// Client reads through the cache, Live past it.
	Client       client.Client
	Live         client.Reader
	Applier      *apply.Applier
	Distribution Asker
	Access       Access
	Events       events.EventRecorder
	Metrics      Metrics
	Clock        func() time.Time
}

const (
	// poll is how often a transition asks for what no event tells.
	poll = time.Second
	// rest is how often a settled topology is looked at: pods that come and go are
	// not watched for it, and how far configuration got is asked for.
	rest = time.Minute
)

// Reconcile brings one topology closer to its spec.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	facts, err := r.gather(ctx, req.Name)
	if err != nil {
		return ctrl.Result{}, err
	}
	if facts == nil {
		r.Metrics.forget(req.Name)
		return ctrl.Result{}, nil
	}
	if facts.Mesh.DeletionTimestamp != nil {
		return reconcile.Result(r.delete(ctx, facts))
	}
	if controllerutil.AddFinalizer(facts.Mesh, v1alpha1.Finalizer) {
		return ctrl.Result{}, r.patchFinalizers(ctx, facts.Mesh)
	}
	plan, err := Decide(facts)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("plan: %w", err)
	}
	err = r.act(ctx, facts, plan)
	if unreported := r.report(ctx, facts, plan, err); unreported != nil {
		return reconcile.Result(unreported)
	}
	return reconcile.Result(err)
}

// act brings about the plan. Waiting is an error of its own class.
func (r *Reconciler) act(ctx context.Context, f *Facts, p *Plan) error {
	if f.Mesh.Spec.Suspend {
		return nil
	}
	// What else it is judged by need not be watched.
	if p.Accepted.Status != metav1.ConditionTrue {
		return reconcile.Wait(rest, "another spec")
	}
	ground, err := r.Applier.Apply(ctx, p.Ground...)
	if err != nil {
		return err
	}
	if err := r.granted(ctx, f); err != nil {
		return err
	}
	// isthmusd looks for Istio's kinds once, when it starts.
	if len(f.Missing) > 0 {
		return reconcile.Wait(poll, "CRDs that the mesh needs")
	}
	changes, err := r.Applier.Apply(ctx, p.Objects...)
	if err != nil {
		return err
	}
	pruned, err := r.prune(ctx, f, p)
	if err != nil {
		return err
	}
	entries, err := r.Applier.Apply(ctx, p.Destinations...)
	if err != nil {
		return err
	}
	logChanges(ctx, ground, changes, pruned, entries)
	return next(f, p)
}

// granted waits until the operator may work in the topology's namespace.
func (r *Reconciler) granted(ctx context.Context, f *Facts) error {
	ok, err := r.Access.Granted(ctx, f.Mesh.Spec.Namespace)
	if err == nil && !ok {
		return reconcile.Wait(poll/4, "the right to work in namespace %s", f.Mesh.Spec.Namespace)
	}
	return err
}

// next says when to look again. What is watched needs no answer here.
func next(f *Facts, p *Plan) error {
	switch {
	case p.State != f.State && !p.State.Settled():
		return reconcile.Wait(poll/10, "phase %s", p.State.Phase)
	case !p.State.Settled():
		return reconcile.Wait(poll, "phase %s", p.State.Phase)
	case p.Config.Epoch != f.Published.Epoch, !f.Distribution.Asked, f.Distribution.Problem != "", len(f.Distribution.Lagging) > 0:
		return reconcile.Wait(5*poll, "proxies to follow")
	}
	if left := f.nextExpiry(); left > 0 && left < rest {
		return reconcile.Wait(left, "an exemption to end")
	}
	return reconcile.Wait(rest, "another look")
}

// prune removes what an earlier plan applied and this one does not have.
func (r *Reconciler) prune(ctx context.Context, f *Facts, p *Plan) ([]apply.Change, error) {
	keep := map[apply.Ref]bool{}
	for _, o := range slices.Concat(p.Objects, p.Destinations) {
		keep[apply.RefOf(o)] = true
	}
	changes, _, err := r.pruneComponents(ctx, f, keep, components...)
	return changes, err
}

// report writes status, once and only if it says something new, and tells of
// changes by Events.
func (r *Reconciler) report(ctx context.Context, f *Facts, p *Plan, failure error) error {
	var waiting reconcile.Waiting
	if errors.As(failure, &waiting) {
		failure = nil
	}
	status := Status(f, p, failure)
	r.Metrics.set(&v1alpha1.MeshTopology{ObjectMeta: f.Mesh.ObjectMeta, Status: status})
	if equality.Semantic.DeepEqual(status, f.Mesh.Status) {
		return nil
	}
	before := f.Mesh.DeepCopy()
	f.Mesh.Status = status
	if err := r.Client.Status().Patch(ctx, f.Mesh, client.MergeFrom(before), client.FieldOwner(apply.Manager)); err != nil {
		return fmt.Errorf("write status: %w", client.IgnoreNotFound(err))
	}
	r.announce(before, f.Mesh)
	return nil
}

// announce makes an Event of each change that a person may care for.
func (r *Reconciler) announce(before, after *v1alpha1.MeshTopology) {
	if t := after.Status.Transition; t != nil && (before.Status.Transition == nil || before.Status.Transition.Phase != t.Phase) {
		r.Events.Eventf(after, nil, corev1.EventTypeNormal, v1alpha1.ReasonTransition, t.Phase, "%s", t.Message)
	}
	if was, is := before.Status.CA, after.Status.CA; was != nil && is != nil && was.Fingerprint != is.Fingerprint {
		r.Events.Eventf(after, nil, corev1.EventTypeWarning, v1alpha1.ReasonRootChanged, "Reconcile",
			"The root certificate is another than before: start all pods of the mesh anew, those that run are not trusted by new ones")
	}
	if c := meta.FindStatusCondition(after.Status.Conditions, v1alpha1.ConditionReady); c.Reason == v1alpha1.ReasonDeleting {
		if was := meta.FindStatusCondition(before.Status.Conditions, c.Type); was == nil || was.Message != c.Message {
			r.Events.Eventf(after, nil, corev1.EventTypeNormal, c.Reason, "Delete", "%s", c.Message)
		}
	}
	for _, c := range conditions.Changed(before.Status.Conditions, after.Status.Conditions) {
		switch {
		case c.Type == v1alpha1.ConditionReady && c.Status == metav1.ConditionTrue:
			r.Events.Eventf(after, nil, corev1.EventTypeNormal, c.Reason, "Reconcile", "%s", c.Message)
		case c.Type == v1alpha1.ConditionStalled && c.Status == metav1.ConditionTrue,
			c.Type == v1alpha1.ConditionReady && c.Reason == v1alpha1.ReasonApplyFailed:
			r.Events.Eventf(after, nil, corev1.EventTypeWarning, c.Reason, "Reconcile", "%s", c.Message)
		}
	}
}

func (r *Reconciler) patchFinalizers(ctx context.Context, m *v1alpha1.MeshTopology) error {
	patch := &v1alpha1.MeshTopology{ObjectMeta: metav1.ObjectMeta{
		Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion, Finalizers: m.Finalizers,
	}}
	before := patch.DeepCopy()
	before.Finalizers = nil
	if len(m.Finalizers) == 0 {
		before.Finalizers = []string{v1alpha1.Finalizer}
	}
	if err := r.Client.Patch(ctx, patch, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), client.FieldOwner(apply.Manager)); err != nil {
		return fmt.Errorf("write finalizers: %w", client.IgnoreNotFound(err))
	}
	return nil
}

func logChanges(ctx context.Context, sets ...[]apply.Change) {
	for _, s := range sets {
		for _, c := range s {
			log.FromContext(ctx).Info(string(c.Action), "object", c.Ref.String())
		}
	}
}
