// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import "k8s.io/apimachinery/pkg/runtime"

// Patch changes an object of the control plane or of a gateway after it is rendered:
// the way out where spec has no field. It is judged by what it changes. Who may do
// what, what is selected, what guards the mesh and how many replicas run cannot be
// patched; such a patch makes the whole spec unacceptable, and nothing is changed.
type Patch struct {
	// Name of the patch, for messages.
	// +required
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="a patch's name is a DNS label in lower case"
	Name string `json:"name"`
	// Target is the object.
	// +required
	Target PatchTarget `json:"target"`
	// Merge is laid over the object by strategic merge: maps are merged, lists of
	// containers, volumes and variables by name; null removes.
	// +required
	Merge PatchBody `json:"merge"`
}

// PatchTarget is one object.
type PatchTarget struct {
	// Kind of the object. Policies, the guard, webhooks and rights cannot be patched.
	// +required
	// +kubebuilder:validation:Enum=Deployment;Service;HorizontalPodAutoscaler;PodDisruptionBudget
	Kind string `json:"kind"`
	// Part whose object it is: "isthmusd", "egress", or the name of an ingress gateway.
	// +required
	// +kubebuilder:validation:MaxLength=63
	Part string `json:"part"`
}

// PatchBody is a part of an object.
//
// +kubebuilder:validation:XValidation:rule="has(self.metadata) || has(self.spec)",message="a patch changes metadata or spec"
type PatchBody struct {
	// Metadata that is added.
	// +optional
	Metadata *PatchMetadata `json:"metadata,omitempty"`
	// Spec of the object, in part.
	// +optional
	// +kubebuilder:pruning:PreserveUnknownFields
	Spec *runtime.RawExtension `json:"spec,omitempty"`
}

// PatchMetadata is added to an object's.
type PatchMetadata struct {
	// Labels that are added.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('isthmus.dev/'))",message="labels under isthmus.dev/ are the operator's own"
	Labels map[string]string `json:"labels,omitempty"`
	// Annotations that are added.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('isthmus.dev/'))",message="annotations under isthmus.dev/ are the operator's own"
	Annotations map[string]string `json:"annotations,omitempty"`
}
