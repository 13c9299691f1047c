// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package trust keeps the certificate authority of each topology: Secret
// isthmus-ca-<name> with the signing key, which only it and isthmusd touch, and
// ConfigMap isthmus-ca-root-<name> beside it with what everybody may know. Other
// controllers read the ConfigMap.
package trust

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
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
	"github.com/isthmus-mesh/isthmus/internal/topology"
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
// the operator may not list them; they are looked at each minute.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("trust").
		For(&v1alpha1.MeshTopology{}, builder.WithPredicates(reconcile.SpecChanged())).
		Owns(&corev1.ConfigMap{}, builder.MatchEveryOwner, builder.WithPredicates(reconcile.Component(v1alpha1.ComponentTrust))).
		Complete(r)
}

// look is how often the Secret is looked at.
const look = time.Minute

// Reconcile makes the CA if there never was one, and publishes its root. A root that
// is published stays so whatever becomes of the Secret: running proxies trust no
// other. Deleting its ConfigMap is how a person asks for a new beginning.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	m, err := reconcile.Topology(ctx, r.Client, req.NamespacedName)
	if err != nil || m == nil {
		return ctrl.Result{}, err
	}
	if ok, err := r.Access.Granted(ctx, m.Spec.Namespace); err != nil || !ok {
		return reconcile.Result(notYet(err, m.Spec.Namespace))
	}
	f, err := r.gather(ctx, m)
	if err != nil {
		return reconcile.Result(err)
	}
	if f.secret == nil && f.root == "" {
		if f.secret, err = r.create(ctx, m); err != nil {
			return reconcile.Result(err)
		}
	}
	u, problem := decide(f, m, r.Clock())
	if u == nil {
		r.Events.Eventf(m, nil, corev1.EventTypeWarning, v1alpha1.ReasonUnusable, "LoadCA", "%s", problem)
		return ctrl.Result{RequeueAfter: look}, nil
	}
	changes, err := r.Applier.Apply(ctx, u)
	if err == nil && len(changes) > 0 && problem != "" {
		reason, message, _ := strings.Cut(problem, ": ")
		r.Events.Eventf(m, nil, corev1.EventTypeWarning, reason, "LoadCA", "%s", message)
	}
	if err != nil {
		return reconcile.Result(err)
	}
	return ctrl.Result{RequeueAfter: look}, nil
}

func notYet(err error, namespace string) error {
	if err != nil {
		return err
	}
	return reconcile.Wait(250*time.Millisecond, "the right to work in namespace %s", namespace)
}

// facts are the CA as it is: the Secret, or nil, and what was published of it.
type facts struct {
	secret *corev1.Secret
	root   string
	notes  map[string]string
}

// gather reads past the cache: an old answer could cost the mesh its root.
func (r *Reconciler) gather(ctx context.Context, m *v1alpha1.MeshTopology) (facts, error) {
	var f facts
	var s corev1.Secret
	key := client.ObjectKey{Namespace: m.Spec.Namespace, Name: revision.CASecret(m.Name)}
	switch err := r.Live.Get(ctx, key, &s); {
	case err == nil:
		f.secret = &s
	case !apierrors.IsNotFound(err):
		return f, fmt.Errorf("read Secret %s: %w", key, err)
	}
	var cm corev1.ConfigMap
	key.Name = topology.RootConfigMapName(m.Name)
	if err := r.Live.Get(ctx, key, &cm); client.IgnoreNotFound(err) != nil {
		return f, fmt.Errorf("read ConfigMap %s: %w", key, err)
	}
	f.root, f.notes = cm.Data[pki.KeyRoot], cm.Annotations
	return f, nil
}

// create makes the Secret. It is created, never applied: a key that is there is
// never written over.
func (r *Reconciler) create(ctx context.Context, m *v1alpha1.MeshTopology) (*corev1.Secret, error) {
	bundle, err := pki.NewRoot(pki.RootOptions{Organization: m.Spec.Trust.Domain, Validity: pki.Validity{Now: r.Clock()}})
	if err != nil {
		return nil, fmt.Errorf("make a root: %w", err)
	}
	data, err := bundle.Data()
	if err != nil {
		return nil, fmt.Errorf("write down the root: %w", err)
	}
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: m.Spec.Namespace, Name: revision.CASecret(m.Name), Labels: map[string]string{
			v1alpha1.LabelTopology: m.Name, v1alpha1.LabelComponent: v1alpha1.ComponentTrust,
		}},
		Type: corev1.SecretTypeOpaque,
		Data: data,
	}
	key := client.ObjectKeyFromObject(s)
	if err := r.Client.Create(ctx, s, client.FieldOwner(apply.Manager)); err != nil {
		return nil, fmt.Errorf("create Secret %s: %w", key, err)
	}
	r.Events.Eventf(m, nil, corev1.EventTypeNormal, v1alpha1.ReasonAvailable, "CreateCA", "Made Secret %s with a new root", key)
	return s, nil
}

// decide is the ConfigMap that tells of the CA, and what keeps the CA from use; no
// ConfigMap if there is nothing to tell of.
func decide(f facts, m *v1alpha1.MeshTopology, now time.Time) (u *unstructured.Unstructured, problem string) {
	root, notes := f.root, map[string]string{}
	for _, k := range []string{v1alpha1.AnnotationFingerprint, v1alpha1.AnnotationNotAfter} {
		if v := f.notes[k]; v != "" {
			notes[k] = v
		}
	}
	bundle, problem := load(f, m, now)
	switch {
	case problem != "":
		notes[v1alpha1.AnnotationProblem] = problem
	default:
		root = string(bundle.RootPEM())
		notes[v1alpha1.AnnotationFingerprint] = pki.Fingerprint(bundle.Roots()[0])
		notes[v1alpha1.AnnotationNotAfter] = bundle.NotAfter().UTC().Format(time.RFC3339)
	}
	if root == "" {
		return nil, problem
	}
	u = RootConfigMap(m, m.Spec.Namespace, root)
	u.SetLabels(map[string]string{v1alpha1.LabelTopology: m.Name, v1alpha1.LabelComponent: v1alpha1.ComponentTrust})
	u.SetAnnotations(notes)
	return u, problem
}

// load is the CA in the Secret, if it goes on with what is published.
func load(f facts, m *v1alpha1.MeshTopology, now time.Time) (*pki.Bundle, string) {
	secret := m.Spec.Namespace + "/" + revision.CASecret(m.Name)
	afresh := fmt.Sprintf("to begin with another root, delete ConfigMap %s/%s and start all pods of the mesh anew", m.Spec.Namespace, topology.RootConfigMapName(m.Name))
	if f.secret == nil {
		return nil, fmt.Sprintf("%s: Secret %s with the mesh's key is gone; proxies keep their certificates until they end, new ones cannot be signed for long: restore the Secret; or, %s",
			v1alpha1.ReasonLost, secret, afresh)
	}
	bundle, err := pki.Load(f.secret.Data, now)
	if err != nil {
		return nil, fmt.Sprintf("%s: Secret %s is no usable CA: %v; restore it", v1alpha1.ReasonUnusable, secret, err)
	}
	if f.root != "" && !f.knows(bundle.Roots()) {
		return nil, fmt.Sprintf("%s: Secret %s holds another root (%.16s) than the published one (%.16s): what it signs is not trusted by running proxies; restore the Secret; or, %s",
			v1alpha1.ReasonRootChanged, secret, pki.Fingerprint(bundle.Roots()[0]), f.notes[v1alpha1.AnnotationFingerprint], afresh)
	}
	return bundle, ""
}

// knows tells whether one of these roots is what the record says.
func (f facts) knows(roots []*x509.Certificate) bool {
	return pki.ReadPublished([]byte(f.root), f.notes[v1alpha1.AnnotationFingerprint]).Knows(roots)
}

// RootConfigMap is the ConfigMap from which pods of a namespace read the root
// certificate; it goes with the MeshTopology.
func RootConfigMap(m *v1alpha1.MeshTopology, namespace, root string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{
			"name": topology.RootConfigMapName(m.Name), "namespace": namespace,
			"ownerReferences": []any{map[string]any{
				"apiVersion": v1alpha1.GroupVersion.String(), "kind": "MeshTopology", "name": m.Name, "uid": string(m.UID),
			}},
		},
		"data": map[string]any{pki.KeyRoot: root},
	}}
}
