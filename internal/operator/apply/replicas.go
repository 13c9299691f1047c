// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
)

// replicasManager owns spec.replicas until somebody else scales.
const replicasManager = "isthmus-operator-replicas"

// Autoscaled marks, at the end of the annotation's value, a number that an
// autoscaler only starts from.
const Autoscaled = "+"

// replicas writes spec.replicas of an object whose annotation asks for a number:
// once after creation, and when the number in the spec changed; never because the
// live number did, so that an autoscaler and a person can own it.
func (a *Applier) replicas(ctx context.Context, before metav1.Object, desired, applied *unstructured.Unstructured) error {
	want := desired.GetAnnotations()[v1alpha1.AnnotationReplicas]
	if want == "" {
		return nil
	}
	asked := before != nil && before.GetAnnotations()[v1alpha1.AnnotationReplicas] == want
	owned := ownsReplicas(applied)
	if owned && (asked || strings.HasSuffix(want, Autoscaled)) {
		return nil
	}
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%s}}`, strings.TrimSuffix(want, Autoscaled))
	if err := a.client.Patch(ctx, applied, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(replicasManager)); err != nil {
		return fmt.Errorf("set replicas: %w", err)
	}
	return nil
}

// ownsReplicas tells whether anybody ever wrote spec.replicas; a default has no owner.
func ownsReplicas(o metav1.Object) bool {
	for _, m := range o.GetManagedFields() {
		if m.FieldsV1 != nil && bytes.Contains(m.FieldsV1.GetRawBytes(), []byte(`"f:replicas"`)) &&
			(m.Subresource == "scale" || bytes.Contains(m.FieldsV1.GetRawBytes(), []byte(`"f:spec"`))) {
			return true
		}
	}
	return false
}
