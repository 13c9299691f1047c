// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package controllers puts the operator's controllers together: what they read
// and cache, and what they share. Each controller is a package of its own.
package controllers

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"
	clientgo "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controllers/member"
	"github.com/isthmus-mesh/isthmus/controllers/topology"
	"github.com/isthmus-mesh/isthmus/controllers/trust"
	"github.com/isthmus-mesh/isthmus/controllers/webhook"
	"github.com/isthmus-mesh/isthmus/internal/operator/apply"
)

// Options are what the controllers need besides the manager.
type Options struct {
	Settings     topology.Settings
	Distribution topology.Asker
	Prober       webhook.Prober
	// Metrics is where the controllers' own metrics are shown.
	Metrics prometheus.Registerer
	Clock   func() time.Time
}

// Scheme knows every kind that the controllers read through the cache.
func Scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	if err := clientgo.AddToScheme(s); err != nil {
		return nil, fmt.Errorf("build the scheme: %w", err)
	}
	if err := v1alpha1.AddToScheme(s); err != nil {
		return nil, fmt.Errorf("build the scheme: %w", err)
	}
	return s, nil
}

// CacheOptions keep in memory what the controllers look at and no more: of kinds
// that everybody uses, only the objects that carry our label; of pods, only what
// is counted.
func CacheOptions() (cache.Options, error) {
	ours, err := labels.NewRequirement(v1alpha1.LabelTopology, selection.Exists, nil)
	if err != nil {
		return cache.Options{}, fmt.Errorf("select our objects: %w", err)
	}
	labelled := cache.ByObject{Label: labels.NewSelector().Add(*ours)}
	by := map[client.Object]cache.ByObject{
		&corev1.Pod{}: {Transform: member.SlimPod},
	}
	for _, o := range []client.Object{
		&appsv1.Deployment{}, &autoscalingv2.HorizontalPodAutoscaler{}, &policyv1.PodDisruptionBudget{},
		&corev1.Service{}, &corev1.ServiceAccount{}, &corev1.ConfigMap{},
		&rbacv1.RoleBinding{}, &rbacv1.ClusterRoleBinding{},
		&admissionv1.MutatingWebhookConfiguration{}, &admissionv1.ValidatingWebhookConfiguration{},
		&admissionv1.ValidatingAdmissionPolicy{}, &admissionv1.ValidatingAdmissionPolicyBinding{},
	} {
		by[o] = labelled
	}
	endpoints := map[string]cache.Config{}
	for _, ns := range topology.WatchedEndpoints() {
		endpoints[ns] = cache.Config{}
	}
	by[&discoveryv1.EndpointSlice{}] = cache.ByObject{Namespaces: endpoints}
	return cache.Options{ByObject: by}, nil
}

// Setup registers all controllers with the manager.
func Setup(mgr ctrl.Manager, o Options) error {
	writes, err := apply.NewMetrics(o.Metrics)
	if err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	states, err := topology.NewMetrics(o.Metrics)
	if err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	applier := apply.New(mgr.GetClient(), mgr.GetAPIReader(), writes)
	recorder := mgr.GetEventRecorder("isthmus-operator")
	access := Access{Client: mgr.GetClient()}
	for name, c := range map[string]interface{ SetupWithManager(ctrl.Manager) error }{
		"topology": &topology.Reconciler{
			Settings: o.Settings, Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Applier: applier,
			Distribution: o.Distribution, Access: access, Events: recorder, Metrics: states, Clock: o.Clock,
		},
		"trust": &trust.Reconciler{
			Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Applier: applier, Access: access, Events: recorder, Clock: o.Clock,
		},
		"member": &member.Reconciler{
			Client: mgr.GetClient(), Applier: applier, OperatorNamespace: o.Settings.Namespace, Clock: o.Clock,
		},
		"webhook": &webhook.Reconciler{
			Client: mgr.GetClient(), Applier: applier, Prober: o.Prober, Events: recorder, OperatorNamespace: o.Settings.Namespace,
		},
	} {
		if err := c.SetupWithManager(mgr); err != nil {
			return fmt.Errorf("set up controller %s: %w", name, err)
		}
	}
	return nil
}

// Access asks the API server what the operator may do.
type Access struct{ Client client.Client }

// Granted tells whether the binding of the operator's namespaced role is in force.
func (a Access) Granted(ctx context.Context, namespace string) (bool, error) {
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: "create", Resource: "secrets"},
	}}
	if err := a.Client.Create(ctx, review); err != nil {
		return false, fmt.Errorf("ask for the right to work in namespace %s: %w", namespace, err)
	}
	return review.Status.Allowed, nil
}
