// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MeshTopologyStatus is what was found and done.
type MeshTopologyStatus struct {
	// ObservedGeneration of the spec that this status speaks of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Topology that holds now.
	// +optional
	Topology TopologyKind `json:"topology,omitempty"`
	// Version that runs.
	// +optional
	Version string `json:"version,omitempty"`
	// Revision that newly injected pods record.
	// +optional
	Revision string `json:"revision,omitempty"`
	// Effective is what spec's absent fields came to.
	// +optional
	Effective *Effective `json:"effective,omitempty"`
	// Transition under way; absent when there is none.
	// +optional
	Transition *Transition `json:"transition,omitempty"`
	// Conditions; all types of this package are always present.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Gateways and where they are reached.
	// +optional
	// +listType=map
	// +listMapKey=name
	Gateways []GatewayStatus `json:"gateways,omitempty"`
	// Members in numbers; details are in each namespace's MeshMember.
	// +optional
	Members *MembersStatus `json:"members,omitempty"`
	// Egress is what is known of the wall of topology EgressGateway.
	// +optional
	Egress *EgressStatus `json:"egress,omitempty"`
	// CA is the mesh's certificate authority.
	// +optional
	CA *CAStatus `json:"ca,omitempty"`
}

// EgressStatus is what is known of the wall of topology EgressGateway.
type EgressStatus struct {
	// Exemptions from the guard that hold now, or have ended.
	// +optional
	// +listType=map
	// +listMapKey=name
	Exemptions []ExemptionStatus `json:"exemptions,omitempty"`
	// Blocking are pods that the wall would cut or the guard refuse, at most 20, as
	// namespace/name and what is wrong with them.
	// +optional
	// +listType=atomic
	Blocking []string `json:"blocking,omitempty"`
	// BlockingCount counts all of them.
	// +optional
	BlockingCount int32 `json:"blockingCount,omitempty"`
	// Holes are NetworkPolicies of others that open more than the wall does, at most
	// 20, as namespace/name and the rule.
	// +optional
	// +listType=atomic
	Holes []string `json:"holes,omitempty"`
	// HolesCount counts all of them.
	// +optional
	HolesCount int32 `json:"holesCount,omitempty"`
}

// ExemptionStatus is an exemption from the guard.
type ExemptionStatus struct {
	// Name of the exemption, as in spec.
	Name string `json:"name"`
	// For whom it is: namespace/serviceAccount.
	For string `json:"for"`
	// Expires is when it ends.
	Expires metav1.Time `json:"expires"`
	// Active until then.
	Active bool `json:"active"`
}

// Effective is what spec's absent fields came to.
type Effective struct {
	// EgressPolicy for hosts that nobody registered.
	// +optional
	EgressPolicy EgressPolicy `json:"egressPolicy,omitempty"`
	// NamespaceSelectors of the members.
	// +optional
	// +listType=atomic
	NamespaceSelectors []metav1.LabelSelector `json:"namespaceSelectors,omitempty"`
	// Registry of the images.
	// +optional
	Registry string `json:"registry,omitempty"`
	// CPURequest of each pod of the control plane and the gateways whose resources
	// name neither a request nor a limit of CPU.
	// +optional
	CPURequest *resource.Quantity `json:"cpuRequest,omitempty"`
	// Discovery that new pods' sidecars are given.
	// +optional
	Discovery DiscoveryMode `json:"discovery,omitempty"`
}

// Transition is a move from one topology to another.
type Transition struct {
	// From the topology that is being left.
	From TopologyKind `json:"from"`
	// To the topology that is being reached.
	To TopologyKind `json:"to"`
	// Phase: Preparing, Routing, Enforcing; or Relaxing, Routing, Retiring.
	Phase string `json:"phase"`
	// Since when the phase lasts.
	// +optional
	Since *metav1.Time `json:"since,omitempty"`
	// Message says what the phase waits for.
	// +optional
	Message string `json:"message,omitempty"`
}

// GatewayStatus is a gateway and where it is reached.
type GatewayStatus struct {
	// Name of the gateway, as in spec; "egress" is the egress gateway.
	Name string `json:"name"`
	// Addresses of its Service: the load balancer's, else the cluster's.
	// +optional
	// +listType=atomic
	Addresses []string `json:"addresses,omitempty"`
	// Ready pods.
	Ready int32 `json:"ready"`
	// Replicas wanted.
	Replicas int32 `json:"replicas"`
}

// MembersStatus counts members and their pods.
type MembersStatus struct {
	// Namespaces in the mesh.
	Namespaces int32 `json:"namespaces"`
	// Pods in them that run or will, host network aside.
	Pods int32 `json:"pods"`
	// Injected pods among them.
	Injected int32 `json:"injected"`
	// Missing counts pods that should carry a proxy and do not.
	Missing int32 `json:"missing"`
	// Examples of such pods, at most 20, as namespace/name.
	// +optional
	// +listType=atomic
	Examples []string `json:"examples,omitempty"`
}

// CAStatus is the mesh's certificate authority.
type CAStatus struct {
	// NotAfter is when it ends.
	// +optional
	NotAfter *metav1.Time `json:"notAfter,omitempty"`
	// Fingerprint: SHA-256 of the root certificate, in hexadecimal.
	// +optional
	Fingerprint string `json:"fingerprint,omitempty"`
}

// MeshMember is one namespace's part in a mesh, for its owners to read. The
// operator writes one, named like the MeshTopology, in each member namespace.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,shortName=mm,categories=isthmus
// +kubebuilder:printcolumn:name="PODS",type=integer,JSONPath=`.status.pods`
// +kubebuilder:printcolumn:name="INJECTED",type=integer,JSONPath=`.status.injected`
// +kubebuilder:printcolumn:name="READY",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="ENFORCED",type=string,JSONPath=`.status.conditions[?(@.type=="PolicyApplied")].status`
// +kubebuilder:printcolumn:name="AGE",type=date,JSONPath=`.metadata.creationTimestamp`
type MeshMember struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Status of the namespace.
	// +optional
	Status MeshMemberStatus `json:"status,omitempty"`
}

// MeshMemberList is a list of MeshMembers.
//
// +kubebuilder:object:root=true
type MeshMemberList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []MeshMember `json:"items"`
}

// MeshMemberStatus is one namespace's part in a mesh.
type MeshMemberStatus struct {
	// Epoch of the topology's configuration that the namespace's objects follow.
	// +optional
	Epoch string `json:"epoch,omitempty"`
	// Enforced is true while the egress NetworkPolicies stand in the namespace.
	// +optional
	Enforced bool `json:"enforced"`
	// Pods that run or will, host network aside.
	// +optional
	Pods int32 `json:"pods"`
	// Injected pods among them.
	// +optional
	Injected int32 `json:"injected"`
	// Missing are pods that should carry a proxy and do not, at most 20.
	// +optional
	// +listType=atomic
	Missing []string `json:"missing,omitempty"`
	// MissingCount counts all of them.
	// +optional
	MissingCount int32 `json:"missingCount"`
	// Blocking are pods that the wall would cut or the guard refuse, and what is
	// wrong with them, at most 20.
	// +optional
	// +listType=atomic
	Blocking []string `json:"blocking,omitempty"`
	// BlockingCount counts all of them.
	// +optional
	BlockingCount int32 `json:"blockingCount,omitempty"`
	// Holes are NetworkPolicies of others that open more than the wall does, with the
	// rule, at most 20.
	// +optional
	// +listType=atomic
	Holes []string `json:"holes,omitempty"`
	// HolesCount counts all of them.
	// +optional
	HolesCount int32 `json:"holesCount,omitempty"`
	// Conditions of the namespace.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
