// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"context"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	outcome "github.com/isthmus-mesh/isthmus/internal/operator/reconcile"
)

// SetupWithManager watches topologies, what they own, and what all depend on.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	every := outcome.Every(r.Client, &v1alpha1.MeshTopologyList{})
	c := ctrl.NewControllerManagedBy(mgr).Named("topology").
		For(&v1alpha1.MeshTopology{}, builder.WithPredicates(outcome.SpecChanged())).
		Watches(&v1alpha1.MeshTopology{}, every, builder.WithPredicates(outcome.SpecChanged())).
		Watches(&v1alpha1.MeshMember{}, handler.EnqueueRequestsFromMapFunc(named)).
		Watches(&corev1.Namespace{}, every).
		Watches(&discoveryv1.EndpointSlice{}, every)
	for _, o := range []client.Object{
		&appsv1.Deployment{}, &autoscalingv2.HorizontalPodAutoscaler{}, &policyv1.PodDisruptionBudget{},
		&corev1.Service{}, &corev1.ServiceAccount{}, &corev1.ConfigMap{}, &networkingv1.NetworkPolicy{},
		&rbacv1.RoleBinding{}, &rbacv1.ClusterRoleBinding{},
		&admissionv1.MutatingWebhookConfiguration{}, &admissionv1.ValidatingWebhookConfiguration{},
		&admissionv1.ValidatingAdmissionPolicy{}, &admissionv1.ValidatingAdmissionPolicyBinding{},
	} {
		c = c.Watches(o, handler.EnqueueRequestsFromMapFunc(labelledFor))
	}
	return c.Complete(r)
}

// labelledFor enqueues the topology that the object's label names.
func labelledFor(_ context.Context, o client.Object) []reconcile.Request {
	name := o.GetLabels()[v1alpha1.LabelTopology]
	if name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: name}}}
}

// named enqueues the topology of the object's name.
func named(_ context.Context, o client.Object) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: o.GetName()}}}
}
