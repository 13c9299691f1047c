// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MeshTopology decides how traffic enters, moves inside and leaves a mesh. Its
// name is the tag that namespaces select with the label istio.io/rev; the name
// "default" also serves istio-injection=enabled.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=mt,categories=isthmus
// +kubebuilder:printcolumn:name="TOPOLOGY",type=string,JSONPath=`.spec.topology`,description="The topology asked for"
// +kubebuilder:printcolumn:name="ACTIVE",type=string,JSONPath=`.status.topology`,description="The topology that holds now"
// +kubebuilder:printcolumn:name="READY",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="ENFORCED",type=string,JSONPath=`.status.conditions[?(@.type=="EgressEnforced")].status`
// +kubebuilder:printcolumn:name="MEMBERS",type=integer,JSONPath=`.status.members.namespaces`
// +kubebuilder:printcolumn:name="VERSION",type=string,JSONPath=`.status.version`
// +kubebuilder:printcolumn:name="AGE",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 30 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="metadata.name is the tag that pods select: a DNS label of at most 30 characters that begins with a letter"
type MeshTopology struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what is wanted.
	// +required
	Spec MeshTopologySpec `json:"spec"`
	// Status is what was found and done; written by the operator. Its default tells
	// kstatus that nothing was yet.
	// +optional
	// +kubebuilder:default:={"observedGeneration":-1}
	Status MeshTopologyStatus `json:"status,omitempty"`
}

// MeshTopologyList is a list of MeshTopologies.
//
// +kubebuilder:object:root=true
type MeshTopologyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []MeshTopology `json:"items"`
}

// TopologyKind is the shape of the mesh's border.
//
// +kubebuilder:validation:Enum=IngressOnly;SidecarEgress;EgressGateway
type TopologyKind string

// The three topologies.
const (
	// IngressOnly: ingress gateways; out of the mesh to any host.
	IngressOnly TopologyKind = "IngressOnly"
	// SidecarEgress: out of the mesh only to registered hosts, each sidecar by itself.
	SidecarEgress TopologyKind = "SidecarEgress"
	// EgressGateway: out of the mesh only to registered hosts and only through the
	// egress gateway, held up by NetworkPolicies.
	EgressGateway TopologyKind = "EgressGateway"
)

// MTLSMode is the default of the mesh for connections between its pods.
//
// +kubebuilder:validation:Enum=Permissive;Strict
type MTLSMode string

// The two modes.
const (
	// MTLSPermissive takes plaintext as well as mTLS.
	MTLSPermissive MTLSMode = "Permissive"
	// MTLSStrict takes mTLS only.
	MTLSStrict MTLSMode = "Strict"
)

// MeshTopologySpec is what is wanted. Only the topology must be given.
//
// +kubebuilder:validation:XValidation:rule="self.topology != 'EgressGateway' || !has(self.egress) || !has(self.egress.policy) || self.egress.policy == 'RegistryOnly'",message="the egress gateway passes registered hosts only: with topology EgressGateway, egress.policy must be RegistryOnly or absent",fieldPath=".egress.policy"
// +kubebuilder:validation:XValidation:rule="!has(self.patches) || self.patches.all(p, p.target.part in ['isthmusd', 'egress'] || (has(self.ingress) && has(self.ingress.gateways) && self.ingress.gateways.exists(g, g.name == p.target.part)))",message="a patch's target.part is isthmusd, egress, or the name of one of ingress.gateways",fieldPath=".patches"
type MeshTopologySpec struct {
	// Topology is the shape of the mesh's border; may be edited at any time.
	// +required
	Topology TopologyKind `json:"topology"`
	// Namespace of the control plane and the gateways; also Istio's root namespace.
	// +optional
	// +kubebuilder:default=isthmus-system
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="the namespace cannot be changed: make a new MeshTopology"
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('kube-') && self != 'default' && self != 'isthmus-operator'",message="the mesh needs a namespace of its own: not kube-*, default or isthmus-operator"
	Namespace string `json:"namespace,omitempty"`
	// Version of control plane and proxies. Empty means the operator's own at first
	// install, kept in status.version.
	// +optional
	// +kubebuilder:validation:MaxLength=20
	// +kubebuilder:validation:XValidation:rule="self == '' || self.matches('^[0-9]+[.][0-9]+[.][0-9]+$')",message="version has the form 1.2.3"
	Version string `json:"version,omitempty"`
	// Members are the namespaces in the mesh.
	// +optional
	// +kubebuilder:default={}
	Members Members `json:"members,omitempty"`
	// ControlPlane is how isthmusd runs.
	// +optional
	ControlPlane ControlPlane `json:"controlPlane,omitempty"`
	// Trust is who vouches for identities.
	// +optional
	// +kubebuilder:default={}
	Trust Trust `json:"trust,omitempty"`
	// MTLS is the mesh's default; PeerAuthentication refines it.
	// +optional
	// +kubebuilder:default=Permissive
	MTLS MTLSMode `json:"mtls,omitempty"`
	// Ingress is the way in.
	// +optional
	// +kubebuilder:default={}
	Ingress Ingress `json:"ingress,omitempty"`
	// Egress is the way out.
	// +optional
	// +kubebuilder:default={}
	Egress Egress `json:"egress,omitempty"`
	// Transition is how the mesh moves from one topology to another.
	// +optional
	// +kubebuilder:default={}
	Transition TransitionSpec `json:"transition,omitempty"`
	// Proxy is how injected proxies look.
	// +optional
	// +kubebuilder:default={}
	Proxy Proxy `json:"proxy,omitempty"`
	// Images says where images come from.
	// +optional
	// +kubebuilder:default={}
	Images Images `json:"images,omitempty"`
	// Telemetry is what proxies report.
	// +optional
	Telemetry Telemetry `json:"telemetry,omitempty"`
	// Patches change rendered objects where spec has no field for it. They are applied
	// last, in this order.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	Patches []Patch `json:"patches,omitempty"`
	// Suspend stops the operator from changing anything for this topology; status
	// is still kept. Deletion is not suspended.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
	// Uninstall says what stays after deletion.
	// +optional
	// +kubebuilder:default={}
	Uninstall Uninstall `json:"uninstall,omitempty"`
}

// InjectionPolicy says which pods of member namespaces get a proxy.
//
// +kubebuilder:validation:Enum=All;Labelled
type InjectionPolicy string

// The two policies.
const (
	// InjectAll gives every pod a proxy that does not opt out.
	InjectAll InjectionPolicy = "All"
	// InjectLabelled gives pods a proxy that carry sidecar.istio.io/inject=true.
	InjectLabelled InjectionPolicy = "Labelled"
)

// Members says which namespaces are in the mesh.
type Members struct {
	// NamespaceSelectors select member namespaces, any of them. The default is
	// istio.io/rev=<name>, and for the name "default" also istio-injection=enabled.
	// Never members: kube-*, the operator's and the control planes' namespaces.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(s, (has(s.matchLabels) && s.matchLabels.size() > 0) || (has(s.matchExpressions) && s.matchExpressions.size() > 0))",message="an empty selector would make every namespace a member: select by at least one label"
	NamespaceSelectors []metav1.LabelSelector `json:"namespaceSelectors,omitempty"`
	// Injection says which pods of a member get a proxy.
	// +optional
	// +kubebuilder:default=All
	Injection InjectionPolicy `json:"injection,omitempty"`
}

// ControlPlane is how isthmusd runs.
type ControlPlane struct {
	// Workload shapes its Deployment.
	// +optional
	Workload Workload `json:"workload,omitempty"`
}

// Trust is who vouches for identities.
type Trust struct {
	// Domain of SPIFFE identities: spiffe://<domain>/ns/<namespace>/sa/<account>.
	// +optional
	// +kubebuilder:default=cluster.local
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="the trust domain is a DNS name in lower case"
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="the trust domain cannot be changed: every identity would change with it"
	Domain string `json:"domain,omitempty"`
	// CA signs the mesh's certificates.
	// +optional
	// +kubebuilder:default={}
	CA CA `json:"ca,omitempty"`
}

// CAType is where the signing key comes from.
//
// +kubebuilder:validation:Enum=SelfSigned
type CAType string

// CASelfSigned is a root that the operator makes and keeps in Secret isthmus-ca-<name>.
const CASelfSigned CAType = "SelfSigned"

// CA is the mesh's certificate authority.
type CA struct {
	// Type says where the signing key comes from.
	// +optional
	// +kubebuilder:default=SelfSigned
	Type CAType `json:"type,omitempty"`
}

// Proxy is how injected proxies look. Annotations on pods refine it.
type Proxy struct {
	// Resources of the proxy container.
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitempty"`
	// LogLevel of Envoy.
	// +optional
	// +kubebuilder:default=warning
	// +kubebuilder:validation:Enum=trace;debug;info;warning;error;critical;off
	LogLevel string `json:"logLevel,omitempty"`
	// Discovery says when sidecars learn of the services that they may call: of all
	// from the start, or of each when their application calls it first, which saves
	// most of their memory in a large mesh. Pods have what held when they were
	// created; the annotation isthmus.dev/discovery says otherwise for one.
	// +optional
	// +kubebuilder:default=Full
	Discovery DiscoveryMode `json:"discovery,omitempty"`
}

// DiscoveryMode says when sidecars learn of services.
//
// +kubebuilder:validation:Enum=Full;OnDemand
type DiscoveryMode string

// The two modes.
const (
	// DiscoverAll: a sidecar knows every service that it may call.
	DiscoverAll DiscoveryMode = "Full"
	// DiscoverOnDemand: a sidecar asks for a service while the first request for it
	// waits. While no control plane answers, such first requests fail.
	DiscoverOnDemand DiscoveryMode = "OnDemand"
)

// Images says where images come from.
type Images struct {
	// Registry and path before the image's name: "registry.example/mesh" gives
	// registry.example/mesh/isthmusd. Empty means the operator's setting.
	// +optional
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="!self.contains('://') && !self.endsWith('/')",message="registry has no scheme and no slash at its end: registry.example/mesh"
	Registry string `json:"registry,omitempty"`
	// PullPolicy of all images.
	// +optional
	// +kubebuilder:default=IfNotPresent
	// +kubebuilder:validation:Enum=Always;IfNotPresent;Never
	PullPolicy corev1.PullPolicy `json:"pullPolicy,omitempty"`
	// PullSecrets by name; they must exist in the control plane's and the members'
	// namespaces.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=8
	PullSecrets []string `json:"pullSecrets,omitempty"`
}

// Telemetry is what proxies report.
type Telemetry struct {
	// AccessLog of every proxy; absent means none.
	// +optional
	AccessLog *AccessLog `json:"accessLog,omitempty"`
}

// AccessLog of every proxy.
type AccessLog struct {
	// File to write to.
	// +optional
	// +kubebuilder:default=/dev/stdout
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^/`
	File string `json:"file,omitempty"`
	// Encoding of a line.
	// +optional
	// +kubebuilder:default=TEXT
	// +kubebuilder:validation:Enum=TEXT;JSON
	Encoding string `json:"encoding,omitempty"`
	// Format in Envoy's command operators; empty means Istio's default.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Format string `json:"format,omitempty"`
}

// KeepPolicy says whether something outlives the MeshTopology.
//
// +kubebuilder:validation:Enum=Retain;Delete
type KeepPolicy string

// The two policies.
const (
	Retain KeepPolicy = "Retain"
	Delete KeepPolicy = "Delete"
)

// Uninstall says what stays after deletion. Everything else goes.
type Uninstall struct {
	// CA is the Secret with the signing key.
	// +optional
	// +kubebuilder:default=Retain
	CA KeepPolicy `json:"ca,omitempty"`
	// Namespace of the control plane; deleted only if the operator made it.
	// +optional
	// +kubebuilder:default=Retain
	Namespace KeepPolicy `json:"namespace,omitempty"`
}
