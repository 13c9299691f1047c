// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"fmt"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/operator/membership"
	"github.com/isthmus-mesh/isthmus/internal/operator/revision"
)

// labelInject on a pod opts in or out of injection.
const labelInject = "sidecar.istio.io/inject"

// Facts are what webhook configurations depend on.
type Facts struct {
	Mesh *v1alpha1.MeshTopology
	// Never lists namespaces that are in no mesh.
	Never []string
	// Root certificate that isthmusd's certificate leads to.
	Root []byte
}

// Injector renders the injection webhook whole: an entry for each member selector.
// It does not fail open: a pod that should carry a proxy must not start without one.
func Injector(f Facts) *admissionv1.MutatingWebhookConfiguration {
	w := &admissionv1.MutatingWebhookConfiguration{
		TypeMeta:   metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "MutatingWebhookConfiguration"},
		ObjectMeta: f.meta(revision.Injector(f.Mesh.Name)),
	}
	for i, s := range membership.Selectors(f.Mesh) {
		w.Webhooks = append(w.Webhooks, admissionv1.MutatingWebhook{
			Name:              fmt.Sprintf("member-%d.injector.isthmus.dev", i),
			ClientConfig:      f.client("/inject"),
			NamespaceSelector: membership.Without(s, f.Never),
			ObjectSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
				{Key: labelInject, Operator: metav1.LabelSelectorOpNotIn, Values: []string{"false"}},
			}},
			Rules: []admissionv1.RuleWithOperations{{
				Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule: admissionv1.Rule{
					APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}, Scope: ptr.To(admissionv1.NamespacedScope),
				},
			}},
			MatchConditions: []admissionv1.MatchCondition{{
				Name: "own-network", Expression: "!has(object.spec.hostNetwork) || !object.spec.hostNetwork",
			}},
			FailurePolicy: ptr.To(admissionv1.Fail), MatchPolicy: ptr.To(admissionv1.Equivalent),
			ReinvocationPolicy: ptr.To(admissionv1.IfNeededReinvocationPolicy), SideEffects: ptr.To(admissionv1.SideEffectClassNone),
			TimeoutSeconds: ptr.To[int32](5), AdmissionReviewVersions: []string{"v1"},
		})
	}
	return w
}

// Validator renders the validation webhook whole: for Istio's objects in member
// namespaces and in the root namespace, and nowhere else.
func Validator(f Facts) *admissionv1.ValidatingWebhookConfiguration {
	w := &admissionv1.ValidatingWebhookConfiguration{
		TypeMeta:   metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "ValidatingWebhookConfiguration"},
		ObjectMeta: f.meta(revision.Validator(f.Mesh.Name)),
	}
	entry := func(name string, s *metav1.LabelSelector) {
		w.Webhooks = append(w.Webhooks, admissionv1.ValidatingWebhook{
			Name: name + ".validator.isthmus.dev", ClientConfig: f.client("/validate"), NamespaceSelector: s,
			Rules:         validated(),
			FailurePolicy: ptr.To(admissionv1.Fail), MatchPolicy: ptr.To(admissionv1.Exact), SideEffects: ptr.To(admissionv1.SideEffectClassNone),
			TimeoutSeconds: ptr.To[int32](5), AdmissionReviewVersions: []string{"v1"},
			ObjectSelector: &metav1.LabelSelector{},
		})
	}
	for i, s := range membership.Selectors(f.Mesh) {
		entry(fmt.Sprintf("member-%d", i), membership.Without(s, f.Never))
	}
	entry("root", &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: f.Mesh.Spec.Namespace}})
	return w
}

// validated are the kinds that isthmusd has rules for.
func validated() []admissionv1.RuleWithOperations {
	rule := func(group string, versions, resources []string) admissionv1.RuleWithOperations {
		return admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
			Rule: admissionv1.Rule{
				APIGroups: []string{group}, APIVersions: versions, Resources: resources, Scope: ptr.To(admissionv1.NamespacedScope),
			},
		}
	}
	return []admissionv1.RuleWithOperations{
		rule("networking.istio.io", []string{"v1", "v1beta1", "v1alpha3"},
			[]string{"destinationrules", "gateways", "serviceentries", "sidecars", "virtualservices", "workloadentries"}),
		rule("security.istio.io", []string{"v1", "v1beta1"}, []string{"peerauthentications"}),
	}
}

func (f Facts) client(path string) admissionv1.WebhookClientConfig {
	return admissionv1.WebhookClientConfig{
		CABundle: f.Root,
		Service: &admissionv1.ServiceReference{
			Namespace: f.Mesh.Spec.Namespace, Name: revision.ControlPlane(f.Mesh.Name), Path: &path, Port: ptr.To[int32](443),
		},
	}
}

func (f Facts) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: name,
		Labels: map[string]string{
			v1alpha1.LabelTopology: f.Mesh.Name, v1alpha1.LabelComponent: v1alpha1.ComponentWebhook,
		},
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: v1alpha1.GroupVersion.String(), Kind: "MeshTopology", Name: f.Mesh.Name, UID: f.Mesh.UID,
		}},
	}
}
