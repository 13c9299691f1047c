// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// EgressPolicy says what happens to traffic for hosts that nobody registered.
//
// +kubebuilder:validation:Enum=AllowAny;RegistryOnly
type EgressPolicy string

// The two policies.
const (
	// AllowAny passes it through.
	AllowAny EgressPolicy = "AllowAny"
	// RegistryOnly refuses it.
	RegistryOnly EgressPolicy = "RegistryOnly"
)

// Egress is the way out of the mesh.
type Egress struct {
	// Policy for hosts that nobody registered. Absent means AllowAny in IngressOnly
	// and RegistryOnly otherwise; what holds is in status.effective.
	// +optional
	Policy EgressPolicy `json:"policy,omitempty"`
	// Destinations are external hosts for the whole mesh. Each becomes a
	// ServiceEntry in the control plane's namespace.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=128
	Destinations []Destination `json:"destinations,omitempty"`
	// Bypass lists what pods reach without their proxy: left out of interception,
	// and opened in the NetworkPolicies of EgressGateway.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Bypass []Bypass `json:"bypass,omitempty"`
	// Gateway is the egress gateway of topology EgressGateway.
	// +optional
	Gateway EgressGatewaySpec `json:"gateway,omitempty"`
	// NetworkPolicy is the wall of topology EgressGateway.
	// +optional
	// +kubebuilder:default={}
	NetworkPolicy EgressNetworkPolicy `json:"networkPolicy,omitempty"`
	// Guard refuses pods that would exempt themselves, while the wall stands.
	// +optional
	// +kubebuilder:default={}
	Guard Guard `json:"guard,omitempty"`
}

// EgressGatewaySpec shapes the egress gateway.
type EgressGatewaySpec struct {
	// Workload shapes its Deployment.
	// +optional
	Workload Workload `json:"workload,omitempty"`
}

// Destination is an external host that the whole mesh may call.
type Destination struct {
	// Name of the destination.
	// +required
	// +kubebuilder:validation:MaxLength=40
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="a destination's name is a DNS label of at most 40 characters that begins with a letter"
	Name string `json:"name"`
	// Hosts by DNS name; "*.example.com" stands for every name below.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.all(h, h.matches('^([*][.])?([a-z0-9]([-a-z0-9]*[a-z0-9])?[.])+[a-z]([-a-z0-9]*[a-z0-9])?$'))",message="hosts are DNS names in lower case, with a star at most as the first label: api.example.com or *.example.com"
	// +kubebuilder:validation:XValidation:rule="self.all(h, !h.matches('^[*][.][^.]+$'))",message="a wildcard for a whole top-level domain is no destination"
	Hosts []string `json:"hosts"`
	// Ports at which the hosts are called.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(p, self.exists_one(q, p.number == q.number))",message="two ports have the same number"
	Ports []DestinationPort `json:"ports"`
}

// DestinationPort is a port of an external host.
type DestinationPort struct {
	// Number of the port.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Number int32 `json:"number"`
	// Protocol that applications speak on it.
	// +required
	// +kubebuilder:validation:Enum=HTTP;HTTP2;GRPC;HTTPS;TLS;TCP
	Protocol string `json:"protocol"`
}

// Bypass is what pods reach without their proxy.
type Bypass struct {
	// Name of the entry.
	// +required
	// +kubebuilder:validation:MaxLength=40
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="a bypass's name is a DNS label of at most 40 characters that begins with a letter"
	Name string `json:"name"`
	// CIDR of the destinations.
	// +required
	// +kubebuilder:validation:MaxLength=43
	// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="cidr is not an address range such as 10.20.0.0/16"
	// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || cidr(self).prefixLength() > 0",message="a bypass to every address leaves no topology: name the ranges"
	CIDR string `json:"cidr"`
	// Ports of the destinations, TCP and UDP; absent means every port.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:Minimum=1
	// +kubebuilder:validation:items:Maximum=65535
	Ports []int32 `json:"ports,omitempty"`
	// NamespaceSelector selects among the member namespaces; absent means all.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
	// PodSelector selects among their pods; absent means all.
	// +optional
	PodSelector *metav1.LabelSelector `json:"podSelector,omitempty"`
}

// PolicyMode says whether NetworkPolicies are written.
//
// +kubebuilder:validation:Enum=Enforce;Off
type PolicyMode string

// The two modes.
const (
	PolicyEnforce PolicyMode = "Enforce"
	PolicyOff     PolicyMode = "Off"
)

// APIServerAccess says whether members may reach the API server.
//
// +kubebuilder:validation:Enum=Auto;None
type APIServerAccess string

// The two ways.
const (
	// APIServerAuto opens the addresses of Service and EndpointSlices default/kubernetes.
	APIServerAuto APIServerAccess = "Auto"
	// APIServerNone opens nothing.
	APIServerNone APIServerAccess = "None"
)

// EgressNetworkPolicy is the wall of topology EgressGateway: what pods of members
// may reach besides their mesh and the egress gateway.
type EgressNetworkPolicy struct {
	// Mode says whether the wall stands.
	// +optional
	// +kubebuilder:default=Enforce
	Mode PolicyMode `json:"mode,omitempty"`
	// DNS is where names are resolved.
	// +optional
	// +kubebuilder:default={}
	DNS DNSAccess `json:"dns,omitempty"`
	// APIServer says whether members may reach the API server.
	// +optional
	// +kubebuilder:default=Auto
	APIServer APIServerAccess `json:"apiServer,omitempty"`
	// Allow lists further destinations inside the cluster or beside it.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Allow []Allow `json:"allow,omitempty"`
}

// DNSAccess is where members' pods resolve names.
type DNSAccess struct {
	// Namespace of the cluster's DNS Service.
	// +optional
	// +kubebuilder:default=kube-system
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
	// Service of the cluster's DNS.
	// +optional
	// +kubebuilder:default=kube-dns
	// +kubebuilder:validation:MaxLength=63
	Service string `json:"service,omitempty"`
	// Addresses of resolvers besides the Service. Those of DaemonSet node-local-dns in
	// the same namespace are found by themselves; another cache's are given here.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=39
	// +kubebuilder:validation:XValidation:rule="self.all(a, isIP(a))",message="addresses of resolvers are IP addresses"
	Addresses []string `json:"addresses,omitempty"`
}

// Allow is a further destination that members' pods may reach.
type Allow struct {
	// Name of the entry.
	// +required
	// +kubebuilder:validation:MaxLength=40
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="an entry's name is a DNS label of at most 40 characters that begins with a letter"
	Name string `json:"name"`
	// To is the destination.
	// +required
	To AllowPeer `json:"to"`
	// Ports; absent means every port.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Ports []AllowPort `json:"ports,omitempty"`
}

// AllowPeer is a set of pods or a range of addresses.
//
// +kubebuilder:validation:XValidation:rule="has(self.cidr) != (has(self.namespaceSelector) || has(self.podSelector))",message="to names either a cidr or pods (namespaceSelector, podSelector)"
// +kubebuilder:validation:XValidation:rule="!has(self.except) || has(self.cidr)",message="except belongs to a cidr"
// +kubebuilder:validation:XValidation:rule="has(self.cidr) || has(self.namespaceSelector)",message="pods are named with their namespaces: give a namespaceSelector"
type AllowPeer struct {
	// NamespaceSelector selects the pods' namespaces.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
	// PodSelector selects among their pods; absent means all.
	// +optional
	PodSelector *metav1.LabelSelector `json:"podSelector,omitempty"`
	// CIDR of addresses.
	// +optional
	// +kubebuilder:validation:MaxLength=43
	// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="cidr is not an address range such as 10.20.0.0/16"
	// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || cidr(self).prefixLength() > 0",message="a range of every address is no wall: name the ranges"
	CIDR string `json:"cidr,omitempty"`
	// Except are ranges inside the CIDR that stay closed.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=43
	// +kubebuilder:validation:XValidation:rule="self.all(c, isCIDR(c))",message="except holds address ranges such as 10.20.30.0/24"
	Except []string `json:"except,omitempty"`
}

// AllowPort is a port, or a range of ports.
//
// +kubebuilder:validation:XValidation:rule="!has(self.end) || self.end >= self.number",message="the range's end is below its number"
type AllowPort struct {
	// Number of the port, or the first of a range.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Number int32 `json:"number"`
	// End of a range.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	End *int32 `json:"end,omitempty"`
	// Protocol of the port.
	// +optional
	// +kubebuilder:default=TCP
	// +kubebuilder:validation:Enum=TCP;UDP
	Protocol string `json:"protocol,omitempty"`
}
