// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package topology holds the values that the operator tells isthmusd: which
// topology holds, whom it covers, and what may flow. The operator writes them as
// YAML under the key "topology" of ConfigMap isthmus-<name> in the control
// plane's namespace; isthmusd reads them from there (or from the same ConfigMap
// in a --config-dir). NetworkPolicies and routes come from the same Flows, so
// proxy and policy cannot disagree.
package topology

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// Keys of ConfigMap isthmus-<name>.
const (
	// ConfigKey holds a Config as YAML.
	ConfigKey = "topology"
	// MeshKey holds an Istio MeshConfig as YAML.
	MeshKey = "mesh"
	// StateKey holds the operator's durable transition state; isthmusd does not read it.
	StateKey = "state"
)

// DistributionAudience is that of the operator's tokens when it asks isthmusd how
// far a configuration has got.
const DistributionAudience = "isthmus-distribution"

// Kind is one of the three topologies.
type Kind string

// The three topologies.
const (
	IngressOnly   Kind = "IngressOnly"
	SidecarEgress Kind = "SidecarEgress"
	EgressGateway Kind = "EgressGateway"
)

// OutboundPolicy says what happens to traffic for hosts that nobody registered.
type OutboundPolicy string

// The two outbound policies.
const (
	AllowAny     OutboundPolicy = "AllowAny"
	RegistryOnly OutboundPolicy = "RegistryOnly"
)

// MTLSMode is the mesh-wide default; PeerAuthentication refines it.
type MTLSMode string

// The two mesh-wide modes.
const (
	Permissive MTLSMode = "Permissive"
	Strict     MTLSMode = "Strict"
)

// Config is what isthmusd needs to know of a MeshTopology.
type Config struct {
	// Name of the MeshTopology: the tag that pods select with istio.io/rev.
	Name string `json:"name"`
	// Namespace of control plane and gateways, also Istio's root namespace.
	Namespace string `json:"namespace"`
	// Revision that injected pods record.
	Revision string `json:"revision,omitempty"`
	// Topology that routes obey now; during a transition the operator moves it.
	Topology Kind `json:"topology"`
	// Epoch identifies this content; proxies' acknowledgements are counted per epoch.
	Epoch string `json:"epoch,omitempty"`
	// Outbound policy in force.
	Outbound OutboundPolicy `json:"outbound"`
	// MTLS is the mesh-wide default.
	MTLS MTLSMode `json:"mtls"`
	// TrustDomain of SPIFFE identities.
	TrustDomain string `json:"trustDomain"`
	// ClusterDomain is the DNS suffix of Services.
	ClusterDomain string `json:"clusterDomain"`
	// Members are namespace selectors, used word for word; any of them.
	Members []metav1.LabelSelector `json:"members,omitempty"`
	// EgressGateway is set when the topology has one.
	EgressGateway *Gateway `json:"egressGateway,omitempty"`
	// Allowance is everything that may flow; empty means no restriction.
	Allowance []Flow `json:"allowance,omitempty"`
	// Bypass lists destinations that pods reach without their proxy. The
	// allowance has a Flow for each, and injection excludes it from interception.
	Bypass []Bypass `json:"bypass,omitempty"`
	// Injection is how pods of members get their proxy.
	Injection Injection `json:"injection,omitzero"`
}

// Gateway names a gateway's Service, the pods behind it and its identity.
type Gateway struct {
	Namespace      string            `json:"namespace"`
	Service        string            `json:"service"`
	ServiceAccount string            `json:"serviceAccount"`
	Labels         map[string]string `json:"labels"`
	Port           int               `json:"port"`
}

// Flow allows connections from one set of peers to another.
type Flow struct {
	// From whom; nobody else. Never empty.
	From Peer `json:"from"`
	// To whom.
	To []Peer `json:"to"`
	// Ports; empty means every port of every protocol.
	Ports []Port `json:"ports,omitempty"`
	// Why, for people: one sentence.
	Why string `json:"why"`
}

// Peer is a set of pods or addresses. Exactly one of Pods/Namespaces or CIDR is used.
type Peer struct {
	// Namespaces selects namespaces; nil with Pods set means the namespace in Namespace.
	Namespaces *metav1.LabelSelector `json:"namespaces,omitempty"`
	// Namespace by name; used when Namespaces is nil.
	Namespace string `json:"namespace,omitempty"`
	// Pods selects pods in these namespaces; nil means all of them.
	Pods *metav1.LabelSelector `json:"pods,omitempty"`
	// CIDR of addresses, with exceptions inside it.
	CIDR   string   `json:"cidr,omitempty"`
	Except []string `json:"except,omitempty"`
}

// Port of a flow. Number 0 means every port of the protocol.
type Port struct {
	Protocol string `json:"protocol"` // TCP or UDP
	Number   int    `json:"number,omitempty"`
	End      int    `json:"end,omitempty"`
}

// Bypass lets pods reach addresses without their proxy (spec.egress.bypass).
type Bypass struct {
	// Name that the user gave the entry; for messages only.
	Name string `json:"name,omitempty"`
	// Namespaces and Pods select the pods, both together; nil selects all of the members'.
	Namespaces *metav1.LabelSelector `json:"namespaces,omitempty"`
	Pods       *metav1.LabelSelector `json:"pods,omitempty"`
	// CIDR of the destinations.
	CIDR string `json:"cidr"`
	// Ports of the destinations; empty means every port.
	Ports []int `json:"ports,omitempty"`
}

// InjectionPolicy says which pods of member namespaces get a proxy unasked.
type InjectionPolicy string

// The two injection policies of spec.members.injection.
const (
	// InjectLabelled needs a label on the namespace or on the pod, as in Istio.
	InjectLabelled InjectionPolicy = "Labelled"
	// InjectAll gives every pod of a member namespace a proxy unless it opts out.
	InjectAll InjectionPolicy = "All"
)

// Injection is what the webhook renders into pods. Zero values mean the defaults
// of the revision.
type Injection struct {
	// Policy; empty means InjectLabelled.
	Policy InjectionPolicy `json:"policy,omitempty"`
	// Image of proxy and init container.
	Image string `json:"image,omitempty"`
	// PullPolicy of Image; empty leaves it to Kubernetes.
	PullPolicy corev1.PullPolicy `json:"pullPolicy,omitempty"`
	// PullSecrets are added to the pods; they must exist in the pods' namespaces.
	PullSecrets []string `json:"pullSecrets,omitempty"`
	// Resources of the proxy container.
	Resources corev1.ResourceRequirements `json:"resources,omitzero"`
	// LogLevel of the proxy, as Envoy names levels.
	LogLevel string `json:"logLevel,omitempty"`
	// Discovery is what sidecars say of themselves, see docs/decisions/0012; empty means
	// what their agent says.
	Discovery string `json:"discovery,omitempty"`
}

// ConfigMapName is where the Config of the named topology lives.
func ConfigMapName(name string) string { return "isthmus-" + name }

// RootConfigMapName holds the root certificate of the named topology under
// pki.KeyRoot, in the control plane's namespace and in every member.
func RootConfigMapName(name string) string { return "isthmus-ca-root-" + name }

// Marshal renders the Config as the YAML of ConfigKey.
func (c Config) Marshal() (string, error) {
	b, err := yaml.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("marshal topology config: %w", err)
	}
	return string(b), nil
}

// Parse reads what Marshal wrote. Unknown fields are an error: operator and
// isthmusd of one revision come from one source.
func Parse(s string) (Config, error) {
	var c Config
	if err := yaml.UnmarshalStrict([]byte(s), &c); err != nil {
		return Config{}, fmt.Errorf("parse topology config: %w", err)
	}
	return c, nil
}
