// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
)

// replicasManager writes spec.replicas until somebody else scales.
const replicasManager = "isthmus-operator-replicas"

// Autoscaled marks, at the end of the annotation's value, a number that an
// autoscaler only starts from.
const Autoscaled = "+"

// replicas writes spec.replicas of an object whose annotation asks for a number:
// once after creation, and when the number in the spec changed; never because the
// live number did, so that an autoscaler and a person can own it. What was written
// is noted in the same write. Who owns the field would not tell: a server forgets
// that somebody scaled when the object is applied again.
func (a *Applier) replicas(ctx context.Context, desired, applied *unstructured.Unstructured) error {
	want, written := desired.GetAnnotations()[v1alpha1.AnnotationReplicas], applied.GetAnnotations()[v1alpha1.AnnotationReplicasWritten]
	if want == "" || written == want || written != "" && strings.HasSuffix(want, Autoscaled) {
		return nil
	}
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}},"spec":{"replicas":%s}}`,
		v1alpha1.AnnotationReplicasWritten, want, strings.TrimSuffix(want, Autoscaled))
	if err := a.client.Patch(ctx, applied, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(replicasManager)); err != nil {
		return fmt.Errorf("set replicas: %w", err)
	}
	return nil
}
