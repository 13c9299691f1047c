// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package model holds the immutable values that isthmusd keeps of the world:
// only the fields that are used, in the vocabulary of Istio. Whoever holds a
// value may share it between goroutines and must not change it.
package model

import (
	"net/netip"
	"time"

	networking "istio.io/api/networking/v1alpha3"
	security "istio.io/api/security/v1beta1"
)

// Key is a namespaced name.
type Key struct{ Namespace, Name string }

func (k Key) String() string { return k.Namespace + "/" + k.Name }

// InNamespace is the namespace, for code that is generic over kinds.
func (k Key) InNamespace() string { return k.Namespace }

// Kinds of objects that declare services.
const (
	KindService      = "Service"
	KindServiceEntry = "ServiceEntry"
)

// WorkloadKind tells what stands for a workload.
type WorkloadKind string

// Kinds of workloads.
const (
	KindPod           WorkloadKind = ""
	KindWorkloadEntry WorkloadKind = "WorkloadEntry"
)

// Meta is what every configuration object has. Created orders objects that
// compete (the oldest wins, then by name, as in Istio).
type Meta struct {
	Key
	Kind            string
	Created         time.Time
	Labels          map[string]string
	ResourceVersion string
}

// Protocol of a service port.
type Protocol string

// Protocols, as Istio names them; Auto is detected on the wire.
const (
	HTTP   Protocol = "HTTP"
	HTTP2  Protocol = "HTTP2"
	GRPC   Protocol = "GRPC"
	HTTPS  Protocol = "HTTPS"
	TLS    Protocol = "TLS"
	TCP    Protocol = "TCP"
	UDP    Protocol = "UDP"
	Auto   Protocol = "Auto"
	Unused Protocol = "Unused"
)

// IsHTTP tells whether the port is known to speak HTTP in the clear.
func (p Protocol) IsHTTP() bool { return p == HTTP || p == HTTP2 || p == GRPC }

// IsTLS tells whether the application itself speaks TLS on the port.
func (p Protocol) IsTLS() bool { return p == TLS || p == HTTPS }

// Port of a service.
type Port struct {
	Name     string
	Number   uint32
	Protocol Protocol
	// TargetPort is the port on the endpoint when it's a number and the same for
	// all; 0 when it is named or left to the endpoints.
	TargetPort uint32
	// TargetName is the named target port, when it is one.
	TargetName string
}

// Resolution says how addresses of a service's endpoints are found.
type Resolution uint8

// Resolutions.
const (
	// ClientSideLB balances over known endpoints (Kubernetes Services, STATIC entries).
	ClientSideLB Resolution = iota
	// Passthrough goes to the address that the client dialled (headless, NONE).
	Passthrough
	// DNS resolves endpoint host names: strict DNS, balancing over all answers.
	DNS
	// DNSRoundRobin resolves lazily to one logical host.
	DNSRoundRobin
	// DynamicDNS resolves the host that each request names.
	DynamicDNS
)

// ServiceKey identifies a service: where it is declared and its host name. One
// host may be declared in several namespaces.
type ServiceKey struct{ Namespace, Host string }

// Service is a Kubernetes Service, or one host of a ServiceEntry.
type Service struct {
	ServiceKey
	// Object that declares it (Kind is Service or ServiceEntry).
	Object Meta
	// Name is the Kubernetes Service's name; "" for a ServiceEntry.
	Name string
	// Addresses are the VIPs; ranges are allowed for resolution NONE entries.
	Addresses []netip.Prefix
	Ports     []Port
	// Selector of pods (Service) or of workloads (ServiceEntry workloadSelector).
	Selector   map[string]string
	Resolution Resolution
	Headless   bool
	// External is true for MESH_EXTERNAL entries and for ExternalName Services.
	External bool
	// ExternalName is the target of a Kubernetes ExternalName Service.
	ExternalName string
	// ExportTo as declared: ".", "*" or namespaces; empty means the mesh default.
	ExportTo []string
	// SubjectAltNames to expect of the endpoints' certificates (ServiceEntry).
	SubjectAltNames []string
	// NodeLocal is internalTrafficPolicy: Local.
	NodeLocal bool
	// PublishNotReady is publishNotReadyAddresses.
	PublishNotReady bool
	// EndpointsFromWorkloads is set when the workloads that Selector selects are
	// the endpoints: ServiceEntries with a workloadSelector, and Services where
	// nobody makes EndpointSlices.
	EndpointsFromWorkloads bool
}

// PortNumber finds a port by number.
func (s *Service) PortNumber(n uint32) (Port, bool) {
	for _, p := range s.Ports {
		if p.Number == n {
			return p, true
		}
	}
	return Port{}, false
}

// TLS modes of endpoints, as on the wire (endpoint metadata tlsMode).
const (
	TLSIstio    = "istio"
	TLSDisabled = "disabled"
)

// Endpoint is one address of a service.
type Endpoint struct {
	// Address is an IP, a host name (DNS resolutions), or a unix path.
	Address string
	// Ports maps service port names to numbers on this endpoint.
	Ports map[string]uint32
	// Ready is false for endpoints that are terminating or not ready.
	Ready bool
	// Labels of the workload, for subsets.
	Labels         map[string]string
	Namespace      string
	Workload       string
	ServiceAccount string
	// Pod is set where Workload is a Pod with an address of its own: one that
	// NetworkPolicies know by its labels.
	Pod bool
	// TLSMode is TLSIstio when the workload has a proxy that ends mesh TLS.
	TLSMode  string
	Locality string // region/zone/subzone
	Network  string
	Node     string
	Weight   uint32 // 0 means 1
}

// Summary is what clusters and listeners may know of a service's endpoints, so
// that churn which leaves it alone touches only ClusterLoadAssignments.
type Summary struct {
	// ServiceAccounts as "namespace/name", sorted.
	ServiceAccounts []string
	// Ready is the number of ready endpoints, capped at 1: 0 or 1.
	Ready int
	// AllTLS is true when every endpoint can end mesh TLS (and there is one); AnyTLS when one can.
	AllTLS, AnyTLS bool
	// Addresses of a headless service's endpoints, sorted; nil otherwise.
	Addresses []string
}

// Workload is a Pod (or WorkloadEntry) as far as routing and policy need it.
type Workload struct {
	Key
	Kind           WorkloadKind
	UID            string
	IPs            []netip.Addr
	Labels         map[string]string
	Annotations    map[string]string // only sidecar.istio.io/ traffic.sidecar.istio.io/ keys
	ServiceAccount string
	Node           string
	Locality       string
	Network        string
	// Ports maps container port names to numbers; of a WorkloadEntry, the names of
	// service ports.
	Ports map[string]uint32
	// Weight of a WorkloadEntry; 0 means 1.
	Weight uint32
	// Proxied is true when the pod has a proxy container.
	Proxied bool
	Ready   bool
	// HostNetwork pods are never proxied by address.
	HostNetwork bool
}

// Node is a Kubernetes node as far as locality needs it.
type Node struct {
	Name     string
	Locality string // region/zone/subzone
	// PodRanges are what the node gives its pods addresses from, where that is known.
	PodRanges []netip.Prefix
}

// Namespace with its labels.
type Namespace struct {
	Name   string
	Labels map[string]string
}

// Secret holds the TLS material of a gateway credential.
type Secret struct {
	Key
	Cert, PrivateKey, CA []byte
}

// VirtualService with its specification. Do not modify.
type VirtualService struct {
	Meta
	Spec *networking.VirtualService
}

// DestinationRule with its specification. Do not modify.
type DestinationRule struct {
	Meta
	Spec *networking.DestinationRule
}

// Gateway is Istio's Gateway object. Do not modify.
type Gateway struct {
	Meta
	Spec *networking.Gateway
}

// Sidecar is Istio's Sidecar object. Do not modify.
type Sidecar struct {
	Meta
	Spec *networking.Sidecar
}

// PeerAuthentication with its specification. Do not modify.
type PeerAuthentication struct {
	Meta
	Spec *security.PeerAuthentication
}

// Proxy is one data-plane proxy, as verified: namespace, name, labels and
// account come from its Pod where there is one, not from what the node claims.
type Proxy struct {
	ID string // node id on the wire
	// Type is "sidecar" or "router".
	Type           string
	Name           string
	Namespace      string
	IPs            []netip.Addr
	Labels         map[string]string
	ServiceAccount string
	// Workload that the pod is one of, as its node claims.
	Workload string
	Locality string
	Network  string
	Cluster  string
	Node     string
	// Interception is REDIRECT, TPROXY or NONE.
	Interception string
	// EnvoyVersion as major.minor.
	EnvoyVersion string
	// IstioVersion as claimed in node metadata; "" for our own agent.
	IstioVersion string
	// Ports maps the pod's container port names to numbers.
	Ports map[string]uint32
	// Delta is true for delta streams.
	Delta bool
	// HostsApart is true if it takes virtual hosts one by one.
	HostsApart bool
	// OnDemand is true if it asks for clusters when it needs them.
	OnDemand bool
}
