// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/operator/crds"
	"github.com/isthmus-mesh/isthmus/internal/operator/distribution"
	"github.com/isthmus-mesh/isthmus/internal/operator/membership"
	"github.com/isthmus-mesh/isthmus/internal/operator/revision"
	"github.com/isthmus-mesh/isthmus/internal/operator/transition"
	"github.com/isthmus-mesh/isthmus/internal/pki"
	mesh "github.com/isthmus-mesh/isthmus/internal/topology"
)

// gather reads all facts about the named topology; nil if there is no such. The
// topology itself is read past the cache: status is computed from the one before,
// and an old one would repeat Events and move times.
func (r *Reconciler) gather(ctx context.Context, name string) (*Facts, error) {
	f := &Facts{Settings: r.Settings, Mesh: &v1alpha1.MeshTopology{}, Now: r.Clock()}
	if err := r.Live.Get(ctx, client.ObjectKey{Name: name}, f.Mesh); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	for _, part := range []func(context.Context, *Facts) error{
		r.gatherOthers, r.gatherPublished, r.gatherMembers, r.gatherParts, r.gatherTrust,
		r.gatherInjector, r.gatherCluster, r.gatherAPIs, r.gatherDistribution,
	} {
		if err := part(ctx, f); err != nil {
			return nil, fmt.Errorf("gather facts: %w", err)
		}
	}
	return f, nil
}

func (r *Reconciler) gatherOthers(ctx context.Context, f *Facts) error {
	var all v1alpha1.MeshTopologyList
	if err := r.Client.List(ctx, &all); err != nil {
		return fmt.Errorf("list MeshTopologies: %w", err)
	}
	for _, m := range all.Items {
		if m.Name != f.Mesh.Name {
			f.Others = append(f.Others, m)
		}
	}
	return nil
}

// gatherPublished reads the durable state past the cache: an old one would undo
// what was written since.
func (r *Reconciler) gatherPublished(ctx context.Context, f *Facts) error {
	var cm corev1.ConfigMap
	key := client.ObjectKey{Namespace: f.Mesh.Spec.Namespace, Name: mesh.ConfigMapName(f.Mesh.Name)}
	if err := r.Live.Get(ctx, key, &cm); err != nil {
		return client.IgnoreNotFound(err)
	}
	// What cannot be read counts as lost, and begins again.
	if s, err := transition.Parse(cm.Data[mesh.StateKey]); err == nil {
		f.State = s
	}
	if c, err := mesh.Parse(cm.Data[mesh.ConfigKey]); err == nil {
		f.Published = c
	}
	return nil
}

func (r *Reconciler) gatherMembers(ctx context.Context, f *Facts) error {
	var namespaces corev1.NamespaceList
	if err := r.Client.List(ctx, &namespaces); err != nil {
		return fmt.Errorf("list Namespaces: %w", err)
	}
	var members v1alpha1.MeshMemberList
	if err := r.Client.List(ctx, &members); err != nil {
		return fmt.Errorf("list MeshMembers: %w", err)
	}
	for _, m := range members.Items {
		if m.Name == f.Mesh.Name {
			f.Members.Objects = append(f.Members.Objects, m)
		}
	}
	var err error
	f.Members.Namespaces, f.Members.Contested, err = membership.Resolve(f.Mesh, f.all(), namespaces.Items, members.Items, f.never())
	if err != nil {
		f.Members.Problem = err.Error()
		return nil
	}
	f.Members.Marked = f.marked(namespaces.Items)
	var policies networkingv1.NetworkPolicyList
	in, err := componentSelector(f.Mesh.Name, []string{v1alpha1.ComponentMember, v1alpha1.ComponentNetworkPolicy})
	if err != nil {
		return err
	}
	if err := r.Client.List(ctx, &policies, in); err != nil {
		return fmt.Errorf("list NetworkPolicies: %w", err)
	}
	f.Members.Policies = len(policies.Items)
	return nil
}

// all topologies, this one first.
func (f *Facts) all() []v1alpha1.MeshTopology {
	return append([]v1alpha1.MeshTopology{*f.Mesh}, f.Others...)
}

// never lists the namespaces that are in no mesh.
func (f *Facts) never() []string { return membership.Never(f.Settings.Namespace, f.all()) }

// marked lists member selectors that cover a namespace which is never a member.
func (f *Facts) marked(namespaces []corev1.Namespace) []int {
	var out []int
	never := append(f.never(), f.Members.Contested...)
	for i, s := range membership.Selectors(f.Mesh) {
		compiled, err := selector(&s)
		if err == nil && slices.ContainsFunc(namespaces, func(ns corev1.Namespace) bool {
			return (strings.HasPrefix(ns.Name, "kube-") || slices.Contains(never, ns.Name)) && compiled.Matches(labels.Set(ns.Labels))
		}) {
			out = append(out, i)
		}
	}
	return out
}

func (r *Reconciler) gatherParts(ctx context.Context, f *Facts) error {
	own := f.Mesh.Spec.Namespace
	var ns corev1.Namespace
	switch err := r.Client.Get(ctx, client.ObjectKey{Name: own}, &ns); {
	case err == nil:
		f.Parts.Namespace = &ns
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("read Namespace %s: %w", own, err)
	}
	f.Parts.Gateways = map[string]Gateway{}
	inOwn := []client.ListOption{client.InNamespace(own), client.MatchingLabels{v1alpha1.LabelTopology: f.Mesh.Name}}
	var deployments appsv1.DeploymentList
	if err := r.Client.List(ctx, &deployments, inOwn...); err != nil {
		return fmt.Errorf("list Deployments: %w", err)
	}
	for i := range deployments.Items {
		d := &deployments.Items[i]
		switch g := d.Labels[v1alpha1.LabelGateway]; {
		case g != "":
			f.Parts.Gateways[g] = Gateway{Deployment: d, Service: f.Parts.Gateways[g].Service}
		case d.Name == revision.Deployment(f.revision()):
			f.Parts.ControlPlane = d
		}
	}
	var services corev1.ServiceList
	if err := r.Client.List(ctx, &services, inOwn...); err != nil {
		return fmt.Errorf("list Services: %w", err)
	}
	for i := range services.Items {
		s := &services.Items[i]
		switch g := s.Labels[v1alpha1.LabelGateway]; {
		case g != "":
			f.Parts.Gateways[g] = Gateway{Deployment: f.Parts.Gateways[g].Deployment, Service: s}
		case s.Name == revision.ControlPlane(f.Mesh.Name):
			f.Parts.Service = s
		}
	}
	var accounts corev1.ServiceAccountList
	if err := r.Client.List(ctx, &accounts, inOwn...); err != nil {
		return fmt.Errorf("list ServiceAccounts: %w", err)
	}
	f.Parts.Accounts = map[string]types.UID{}
	for _, a := range accounts.Items {
		f.Parts.Accounts[a.Name] = a.UID
	}
	return nil
}

func (r *Reconciler) gatherTrust(ctx context.Context, f *Facts) error {
	var cm corev1.ConfigMap
	key := client.ObjectKey{Namespace: f.Mesh.Spec.Namespace, Name: mesh.RootConfigMapName(f.Mesh.Name)}
	if err := r.Client.Get(ctx, key, &cm); err != nil {
		return client.IgnoreNotFound(err)
	}
	f.Trust.Root = cm.Data[pki.KeyRoot]
	f.Trust.Fingerprint = cm.Annotations[v1alpha1.AnnotationFingerprint]
	f.Trust.Reason, f.Trust.Problem, _ = strings.Cut(cm.Annotations[v1alpha1.AnnotationProblem], ": ")
	// An unreadable time is shown as none.
	f.Trust.NotAfter, _ = time.Parse(time.RFC3339, cm.Annotations[v1alpha1.AnnotationNotAfter])
	return nil
}

// gatherInjector needs the root that gatherTrust read.
func (r *Reconciler) gatherInjector(ctx context.Context, f *Facts) error {
	var w admissionv1.MutatingWebhookConfiguration
	if err := r.Client.Get(ctx, client.ObjectKey{Name: revision.Injector(f.Mesh.Name)}, &w); err != nil {
		return client.IgnoreNotFound(err)
	}
	f.Parts.Injector.Present = true
	root := bytes.TrimSpace([]byte(f.Trust.Root))
	f.Parts.Injector.Trusted = len(root) > 0 && len(w.Webhooks) > 0 && bytes.Contains(w.Webhooks[0].ClientConfig.CABundle, root)
	return nil
}

func (r *Reconciler) gatherAPIs(ctx context.Context, f *Facts) error {
	for _, name := range crds.Required() {
		crd := &metav1.PartialObjectMetadata{}
		crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
		err := r.Client.Get(ctx, client.ObjectKey{Name: name}, crd)
		switch {
		case apierrors.IsNotFound(err):
			f.Missing = append(f.Missing, name)
		case err != nil:
			return fmt.Errorf("read CRD %s: %w", name, err)
		}
	}
	return nil
}

// gatherDistribution asks how far the published configuration got.
func (r *Reconciler) gatherDistribution(ctx context.Context, f *Facts) error {
	if f.Published.Epoch == "" || !available(f.Parts.ControlPlane) {
		return nil
	}
	replicas, expected, err := r.proxies(ctx, f)
	if err != nil {
		return err
	}
	d := Distribution{Asked: true, Expected: expected}
	report, err := r.Distribution.Ask(ctx, distribution.ControlPlane{
		Name: revision.ControlPlaneHost(f.Mesh.Name, f.Mesh.Spec.Namespace),
		Root: []byte(f.Trust.Root), Replicas: replicas,
	}, f.Published.Epoch)
	if err != nil {
		d.Problem = err.Error()
	} else {
		d.Lagging, d.Rejected = report.Lagging(expected), report.Rejected
	}
	f.Distribution = d
	return nil
}

// proxies lists the addresses of isthmusd's replicas, and the proxies that must
// follow: gateways, and injected pods of members.
func (r *Reconciler) proxies(ctx context.Context, f *Facts) (replicas []string, expected []distribution.Proxy, err error) {
	var own corev1.PodList
	if err := r.Client.List(ctx, &own, client.InNamespace(f.Mesh.Spec.Namespace), client.MatchingLabels{v1alpha1.LabelTopology: f.Mesh.Name}); err != nil {
		return nil, nil, fmt.Errorf("list Pods: %w", err)
	}
	for i := range own.Items {
		p := &own.Items[i]
		if p.Status.Phase != corev1.PodRunning || p.DeletionTimestamp != nil {
			continue
		}
		switch p.Labels[v1alpha1.LabelComponent] {
		case v1alpha1.ComponentControlPlane:
			replicas = append(replicas, distribution.Address(p.Status.PodIP))
		case v1alpha1.ComponentIngressGateway, v1alpha1.ComponentEgressGateway:
			expected = append(expected, distribution.Proxy{Namespace: p.Namespace, Name: p.Name})
		}
	}
	for _, ns := range f.Members.Namespaces {
		var pods corev1.PodList
		if err := r.Client.List(ctx, &pods, client.InNamespace(ns.Name)); err != nil {
			return nil, nil, fmt.Errorf("list Pods of %s: %w", ns.Name, err)
		}
		for i := range pods.Items {
			p := &pods.Items[i]
			if membership.Injected(p) && p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil {
				expected = append(expected, distribution.Proxy{Namespace: p.Namespace, Name: p.Name})
			}
		}
	}
	return replicas, expected, nil
}

// labelled selects the objects of a component of a topology.
func labelled(name, component string) client.MatchingLabels {
	return client.MatchingLabels{v1alpha1.LabelTopology: name, v1alpha1.LabelComponent: component}
}
