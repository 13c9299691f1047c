// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package webhook keeps the injection and validation webhook configurations of
// each topology. They are rendered whole, root certificate included, and come into
// being only after isthmusd has answered an AdmissionReview: a webhook that nobody
// answers would stop every pod of the mesh.
package webhook

import (
	"context"
	"fmt"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/operator/apply"
	"github.com/isthmus-mesh/isthmus/internal/operator/membership"
	"github.com/isthmus-mesh/isthmus/internal/operator/reconcile"
	"github.com/isthmus-mesh/isthmus/internal/operator/revision"
	"github.com/isthmus-mesh/isthmus/internal/pki"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// Prober asks a webhook whether it answers.
type Prober interface {
	Probe(ctx context.Context, host, namespace string, root []byte) error
}

// Reconciler keeps the webhook configurations of MeshTopologies.
type Reconciler struct {
	Client  client.Client
	Applier *apply.Applier
	Prober  Prober
	Events  events.EventRecorder
	// OperatorNamespace is in no mesh.
	OperatorNamespace string
}

// SetupWithManager watches topologies, their control planes, roots and webhooks.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	every := reconcile.Every(r.Client, &v1alpha1.MeshTopologyList{})
	return ctrl.NewControllerManagedBy(mgr).Named("webhook").
		For(&v1alpha1.MeshTopology{}, builder.WithPredicates(reconcile.SpecChanged())).
		Watches(&v1alpha1.MeshTopology{}, every, builder.WithPredicates(reconcile.SpecChanged())).
		Watches(&v1alpha1.MeshMember{}, every, builder.WithPredicates(reconcile.ComesOrGoes())).
		Watches(&corev1.Namespace{}, every, builder.WithPredicates(predicate.LabelChangedPredicate{})).
		Owns(&corev1.ConfigMap{}, builder.MatchEveryOwner, builder.WithPredicates(reconcile.Component(v1alpha1.ComponentTrust))).
		Owns(&appsv1.Deployment{}, builder.MatchEveryOwner, builder.WithPredicates(reconcile.Component(v1alpha1.ComponentControlPlane))).
		Owns(&admissionv1.MutatingWebhookConfiguration{}, builder.MatchEveryOwner).
		Owns(&admissionv1.ValidatingWebhookConfiguration{}, builder.MatchEveryOwner).
		Complete(r)
}

// retry is how soon a webhook that did not answer is asked again.
const retry = time.Second

// Reconcile renders and applies the configurations once the webhook answers.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	m, err := reconcile.Topology(ctx, r.Client, req.NamespacedName)
	if err != nil || m == nil {
		return ctrl.Result{}, err
	}
	facts, err := r.gather(ctx, m)
	if err != nil || facts == nil {
		return ctrl.Result{}, err
	}
	if err := r.answered(ctx, facts); err != nil {
		return reconcile.Result(err)
	}
	return reconcile.Result(r.apply(ctx, facts))
}

// gather returns nil while there is no root: its ConfigMap is watched.
func (r *Reconciler) gather(ctx context.Context, m *v1alpha1.MeshTopology) (*Facts, error) {
	var all v1alpha1.MeshTopologyList
	if err := r.Client.List(ctx, &all); err != nil {
		return nil, fmt.Errorf("list MeshTopologies: %w", err)
	}
	var cm corev1.ConfigMap
	key := client.ObjectKey{Namespace: m.Spec.Namespace, Name: topology.RootConfigMapName(m.Name)}
	if err := r.Client.Get(ctx, key, &cm); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	never := membership.Never(r.OperatorNamespace, all.Items)
	contested, err := r.contested(ctx, m, all.Items, never)
	if err != nil {
		return nil, err
	}
	return &Facts{Mesh: m, Never: append(never, contested...), Root: []byte(cm.Data[pki.KeyRoot])}, nil
}

// contested lists namespaces that the mesh selects and another one has: only the
// other one's injector may touch their pods. With one mesh there are none.
func (r *Reconciler) contested(ctx context.Context, m *v1alpha1.MeshTopology, all []v1alpha1.MeshTopology, never []string) ([]string, error) {
	if len(all) < 2 {
		return nil, nil
	}
	var namespaces corev1.NamespaceList
	if err := r.Client.List(ctx, &namespaces); err != nil {
		return nil, fmt.Errorf("list Namespaces: %w", err)
	}
	var members v1alpha1.MeshMemberList
	if err := r.Client.List(ctx, &members); err != nil {
		return nil, fmt.Errorf("list MeshMembers: %w", err)
	}
	// An unreadable selector is told on the MeshTopology.
	_, contested, err := membership.Resolve(m, all, namespaces.Items, members.Items, never)
	if err != nil {
		return nil, nil //nolint:nilerr // see above
	}
	return contested, nil
}

// answered returns nil if the webhook has answered with this root, now or before.
func (r *Reconciler) answered(ctx context.Context, f *Facts) error {
	var w admissionv1.MutatingWebhookConfiguration
	err := r.Client.Get(ctx, client.ObjectKey{Name: revision.Injector(f.Mesh.Name)}, &w)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read the injector: %w", err)
	}
	if err == nil && len(w.Webhooks) > 0 && string(w.Webhooks[0].ClientConfig.CABundle) == string(f.Root) {
		return nil
	}
	if ok, err := r.serving(ctx, f.Mesh); err != nil || !ok {
		return waiting(err)
	}
	host := revision.ControlPlaneHost(f.Mesh.Name, f.Mesh.Spec.Namespace) + ":443"
	if err := r.Prober.Probe(ctx, host, f.Mesh.Spec.Namespace, f.Root); err != nil {
		log.FromContext(ctx).Info("the webhook did not answer", "host", host, "error", err.Error())
		r.Events.Eventf(f.Mesh, nil, corev1.EventTypeWarning, v1alpha1.ReasonProbeFailed, "ProbeWebhook", "%s: %v", host, err)
		return reconcile.Wait(retry, "an answer of %s", host)
	}
	return nil
}

// waiting is the error of a control plane that does not serve yet, or the one given.
func waiting(err error) error {
	if err != nil {
		return err
	}
	return reconcile.Wait(reconcile.Resync, "the control plane, which is watched")
}

func (r *Reconciler) serving(ctx context.Context, m *v1alpha1.MeshTopology) (bool, error) {
	var list appsv1.DeploymentList
	if err := r.Client.List(ctx, &list, client.InNamespace(m.Spec.Namespace), client.MatchingLabels{
		v1alpha1.LabelTopology: m.Name, v1alpha1.LabelComponent: v1alpha1.ComponentControlPlane,
	}); err != nil {
		return false, fmt.Errorf("list Deployments: %w", err)
	}
	for _, d := range list.Items {
		for _, c := range d.Status.Conditions {
			if c.Type == appsv1.DeploymentAvailable && c.Status == corev1.ConditionTrue {
				return true, nil
			}
		}
	}
	return false, nil
}

func (r *Reconciler) apply(ctx context.Context, f *Facts) error {
	injector, err := apply.Unstructured(Injector(*f))
	if err != nil {
		return err
	}
	validator, err := apply.Unstructured(Validator(*f))
	if err != nil {
		return err
	}
	changes, err := r.Applier.Apply(ctx, injector, validator)
	for _, c := range changes {
		log.FromContext(ctx).Info(string(c.Action), "object", c.Ref.String())
	}
	return err
}
