// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
)

// object is an empty object of a kind.
func object(apiVersion, kind, namespace, name string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetAPIVersion(apiVersion)
	u.SetKind(kind)
	u.SetName(name)
	if namespace != "" {
		u.SetNamespace(namespace)
	}
	return u
}

func selector(s *metav1.LabelSelector) (labels.Selector, error) {
	return metav1.LabelSelectorAsSelector(s)
}

func lower(s string) string { return strings.ToLower(s) }

// available tells whether the Deployment serves, and as it is asked to now.
func available(d *appsv1.Deployment) bool {
	return d != nil && d.Status.ObservedGeneration >= d.Generation && condition(d, appsv1.DeploymentAvailable) == corev1.ConditionTrue
}

// atMinimum tells whether as many pods serve as are asked for.
func atMinimum(d *appsv1.Deployment) bool {
	return available(d) && d.Status.ReadyReplicas >= ptr.Deref(d.Spec.Replicas, 1) && d.Status.UpdatedReplicas >= 1
}

// stuck tells whether the Deployment has given up on its pods.
func stuck(d *appsv1.Deployment) bool {
	if d == nil {
		return false
	}
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentProgressing && c.Status == corev1.ConditionFalse && c.Reason == "ProgressDeadlineExceeded" {
			return true
		}
	}
	return false
}

func condition(d *appsv1.Deployment, kind appsv1.DeploymentConditionType) corev1.ConditionStatus {
	for _, c := range d.Status.Conditions {
		if c.Type == kind {
			return c.Status
		}
	}
	return corev1.ConditionUnknown
}

// componentSelector selects the objects of some components of a topology.
func componentSelector(name string, components []string) (client.ListOption, error) {
	s, err := selector(&metav1.LabelSelector{
		MatchLabels: map[string]string{v1alpha1.LabelTopology: name},
		MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: v1alpha1.LabelComponent, Operator: metav1.LabelSelectorOpIn, Values: components},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("select components: %w", err)
	}
	return client.MatchingLabelsSelector{Selector: s}, nil
}
