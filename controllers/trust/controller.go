// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package trust keeps the certificate authority of each topology: Secret
// isthmus-ca-<name> with the signing key, which only it and isthmusd touch, and
// ConfigMap isthmus-ca-root-<name> beside it with what everybody may know. Other
// controllers read the ConfigMap.
package trust

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/operator/apply"
	"github.com/isthmus-mesh/isthmus/internal/operator/reconcile"
	"github.com/isthmus-mesh/isthmus/internal/operator/revision"
	"github.com/isthmus-mesh/isthmus/internal/pki"
)

// Access tells whether the operator may already work in a namespace.
type Access interface {
	Granted(ctx context.Context, namespace string) (bool, error)
}

// Reconciler keeps the CA of MeshTopologies.
type Reconciler struct {
	Client client.Client
	// Live reads Secrets, which are never cached.
	Live    client.Reader
	Applier *apply.Applier
	Access  Access
	Events  events.EventRecorder
	Clock   func() time.Time
}

// SetupWithManager watches topologies and the ConfigMaps. Secrets are not watched:
// the operator may not list them; they are looked at at each resync.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("trust").
		For(&v1alpha1.MeshTopology{}, builder.WithPredicates(reconcile.SpecChanged())).
		Owns(&corev1.ConfigMap{}, builder.MatchEveryOwner, builder.WithPredicates(reconcile.Component(v1alpha1.ComponentTrust))).
		Complete(r)
}

// Reconcile makes the CA if there is none, and publishes its root.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var m v1alpha1.MeshTopology
	if err := r.Client.Get(ctx, req.NamespacedName, &m); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if m.DeletionTimestamp != nil || m.Spec.Suspend {
		return ctrl.Result{}, nil
	}
	secret, err := r.ensure(ctx, &m)
	if err != nil {
		return reconcile.Result(err)
	}
	root, problem := r.describe(secret, &m)
	if problem != nil {
		r.Events.Eventf(&m, nil, corev1.EventTypeWarning, v1alpha1.ReasonUnusable, "LoadCA", "%s", problem)
		return ctrl.Result{RequeueAfter: time.Minute}, nil
	}
	_, err = r.Applier.Apply(ctx, root)
	return reconcile.Result(err)
}

// ensure reads the CA Secret, or makes it. It is created, never applied: a key that
// is there is never written over.
func (r *Reconciler) ensure(ctx context.Context, m *v1alpha1.MeshTopology) (*corev1.Secret, error) {
	if ok, err := r.Access.Granted(ctx, m.Spec.Namespace); err != nil || !ok {
		return nil, notYet(err, m.Spec.Namespace)
	}
	var s corev1.Secret
	key := client.ObjectKey{Namespace: m.Spec.Namespace, Name: revision.CASecret(m.Name)}
	err := r.Live.Get(ctx, key, &s)
	if err == nil || !apierrors.IsNotFound(err) {
		return &s, err
	}
	bundle, err := pki.NewRoot(pki.RootOptions{Organization: m.Spec.Trust.Domain, Validity: pki.Validity{Now: r.Clock()}})
	if err != nil {
		return nil, fmt.Errorf("make a root: %w", err)
	}
	data, err := bundle.Data()
	if err != nil {
		return nil, fmt.Errorf("write down the root: %w", err)
	}
	s = corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, Labels: map[string]string{
			v1alpha1.LabelTopology: m.Name, v1alpha1.LabelComponent: v1alpha1.ComponentTrust,
		}},
		Type: corev1.SecretTypeOpaque,
		Data: data,
	}
	if err := r.Client.Create(ctx, &s, client.FieldOwner(apply.Manager)); err != nil {
		return nil, fmt.Errorf("create Secret %s: %w", key, err)
	}
	r.Events.Eventf(m, nil, corev1.EventTypeNormal, v1alpha1.ReasonAvailable, "CreateCA", "Made Secret %s with a new root", key)
	return &s, nil
}

func notYet(err error, namespace string) error {
	if err != nil {
		return err
	}
	return reconcile.Wait(250*time.Millisecond, "the right to work in namespace %s", namespace)
}

// describe is the ConfigMap that tells of the CA, or why there is none to tell of.
func (r *Reconciler) describe(s *corev1.Secret, m *v1alpha1.MeshTopology) (*unstructured.Unstructured, error) {
	bundle, err := pki.Load(s.Data, r.Clock())
	if err != nil {
		return nil, fmt.Errorf("the Secret %s/%s is no usable CA: %w", s.Namespace, s.Name, err)
	}
	u := RootConfigMap(m, m.Spec.Namespace, string(bundle.RootPEM()))
	u.SetLabels(map[string]string{v1alpha1.LabelTopology: m.Name, v1alpha1.LabelComponent: v1alpha1.ComponentTrust})
	u.SetAnnotations(map[string]string{
		v1alpha1.AnnotationFingerprint: fmt.Sprintf("%x", sha256.Sum256(bundle.Roots()[0].Raw)),
		v1alpha1.AnnotationNotAfter:    bundle.NotAfter().UTC().Format(time.RFC3339),
	})
	return u, nil
}

// RootConfigMap is the ConfigMap from which pods of a namespace read the root
// certificate; it goes with the MeshTopology.
func RootConfigMap(m *v1alpha1.MeshTopology, namespace, root string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{
			"name": revision.RootConfigMap(m.Name), "namespace": namespace,
			"ownerReferences": []any{map[string]any{
				"apiVersion": v1alpha1.GroupVersion.String(), "kind": "MeshTopology", "name": m.Name, "uid": string(m.UID),
			}},
		},
		"data": map[string]any{revision.RootKey: root},
	}}
}
