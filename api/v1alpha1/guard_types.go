// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// GuardMode says what becomes of a pod that would exempt itself.
//
// +kubebuilder:validation:Enum=Enforce;Warn;Off
type GuardMode string

// The three modes.
const (
	// GuardEnforce refuses it.
	GuardEnforce GuardMode = "Enforce"
	// GuardWarn lets it in, warns who creates it and leaves an audit annotation.
	GuardWarn GuardMode = "Warn"
	// GuardOff looks at no pod.
	GuardOff GuardMode = "Off"
)

// GuardRule is what a pod may be exempt from.
//
// +kubebuilder:validation:Enum=HostNetwork;HostPID;HostIPC;ShareProcessNamespace;HostPath;HostPorts;Privileged;Capabilities;ProxyUser;ProxyVolumes;ProxyKeys;OptOut
type GuardRule string

// The rules of the guard, in the order in which they are looked at.
const (
	// RuleHostNetwork: the pod has a network of its own.
	RuleHostNetwork GuardRule = "HostNetwork"
	// RuleHostPID: the pod does not see the node's processes.
	RuleHostPID GuardRule = "HostPID"
	// RuleHostIPC: the pod does not share the node's memory.
	RuleHostIPC GuardRule = "HostIPC"
	// RuleShareProcessNamespace: containers do not see the proxy's processes.
	RuleShareProcessNamespace GuardRule = "ShareProcessNamespace"
	// RuleHostPath: nothing of the node's files is mounted.
	RuleHostPath GuardRule = "HostPath"
	// RuleHostPorts: no port is opened on the node.
	RuleHostPorts GuardRule = "HostPorts"
	// RulePrivileged: no container is privileged.
	RulePrivileged GuardRule = "Privileged"
	// RuleCapabilities: no container adds capabilities.
	RuleCapabilities GuardRule = "Capabilities"
	// RuleProxyUser: only the proxy runs as its user or group.
	RuleProxyUser GuardRule = "ProxyUser"
	// RuleProxyVolumes: only the proxy mounts its volumes.
	RuleProxyVolumes GuardRule = "ProxyVolumes"
	// RuleProxyKeys: no annotation leads traffic around the proxy or changes it.
	RuleProxyKeys GuardRule = "ProxyKeys"
	// RuleOptOut: the pod does not refuse its proxy.
	RuleOptOut GuardRule = "OptOut"
)

// Guard refuses pods of members that would exempt themselves from topology
// EgressGateway, and access to their proxies. It stands while the wall does.
type Guard struct {
	// Mode says what becomes of such pods.
	// +optional
	// +kubebuilder:default=Enforce
	Mode GuardMode `json:"mode,omitempty"`
	// Exemptions by namespace and service account. What they cover is shown in
	// status and is no part of what EgressEnforced says.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Exemptions []Exemption `json:"exemptions,omitempty"`
}

// Exemption lets the pods of one service account do what the guard refuses, until
// a day.
type Exemption struct {
	// Name of the exemption.
	// +required
	// +kubebuilder:validation:MaxLength=40
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="an exemption's name is a DNS label of at most 40 characters that begins with a letter"
	Name string `json:"name"`
	// Namespace of the pods.
	// +required
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="an exemption is for one namespace, by its name"
	Namespace string `json:"namespace"`
	// ServiceAccount that the pods run as.
	// +required
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="an exemption is for one service account, by its name"
	ServiceAccount string `json:"serviceAccount"`
	// Allow lists the rules that do not hold for them.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Allow []GuardRule `json:"allow"`
	// Reason, for those who read it later.
	// +required
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="self.matches('[^ ]')",message="an exemption says why it is there"
	Reason string `json:"reason"`
	// Expires is when the exemption ends; pods that run go on.
	// +required
	Expires metav1.Time `json:"expires"`
}

// UninjectedPolicy says what becomes of pods that the wall would cut or the guard
// would refuse, when it goes up.
//
// +kubebuilder:validation:Enum=Block;Cut
type UninjectedPolicy string

// The two policies.
const (
	// UninjectedBlock keeps the wall down until they are gone.
	UninjectedBlock UninjectedPolicy = "Block"
	// UninjectedCut raises it all the same.
	UninjectedCut UninjectedPolicy = "Cut"
)

// TransitionSpec is how a mesh moves from one topology to another.
type TransitionSpec struct {
	// Uninjected says what becomes of running pods without a proxy, or in breach of
	// the guard, when the wall of topology EgressGateway goes up.
	// +optional
	// +kubebuilder:default=Block
	Uninjected UninjectedPolicy `json:"uninjected,omitempty"`
}
