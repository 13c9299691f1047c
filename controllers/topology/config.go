// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/operator/allowance"
	"github.com/isthmus-mesh/isthmus/internal/operator/membership"
	"github.com/isthmus-mesh/isthmus/internal/operator/revision"
	"github.com/isthmus-mesh/isthmus/internal/operator/transition"
	mesh "github.com/isthmus-mesh/isthmus/internal/topology"
	"github.com/isthmus-mesh/isthmus/internal/version"
)

// config is what isthmusd is told in this state.
func (f *Facts) config(s transition.State) (mesh.Config, error) {
	spec := &f.Mesh.Spec
	routes := s.Routes()
	c := mesh.Config{
		Name: f.Mesh.Name, Namespace: spec.Namespace, Revision: f.revision(),
		Topology:      mesh.Kind(routes),
		Outbound:      mesh.OutboundPolicy(EgressPolicy(f.Mesh, routes)),
		MTLS:          mesh.MTLSMode(spec.MTLS),
		TrustDomain:   spec.Trust.Domain,
		ClusterDomain: f.Settings.ClusterDomain,
		Members:       membership.Selectors(f.Mesh),
		Injection: mesh.Injection{
			Policy:      mesh.InjectionPolicy(spec.Members.Injection),
			Image:       f.image("isthmus-proxy"),
			PullPolicy:  spec.Images.PullPolicy,
			PullSecrets: spec.Images.PullSecrets,
			Resources:   spec.Proxy.Resources,
			LogLevel:    spec.Proxy.LogLevel,
			Discovery:   f.tellsDiscovery(),
		},
	}
	for _, b := range spec.Egress.Bypass {
		c.Bypass = append(c.Bypass, bypass(b))
	}
	if routes == v1alpha1.EgressGateway {
		name := revision.Gateway(revision.Egress, f.Mesh.Name)
		c.EgressGateway = &mesh.Gateway{
			Namespace: spec.Namespace, Service: name, ServiceAccount: name, Port: allowance.EgressPort,
			Labels: allowance.Part(f.Mesh.Name, spec.Namespace, v1alpha1.ComponentEgressGateway).Pods.MatchLabels,
		}
		c.Allowance = f.flows(c)
	}
	epoch, err := epochOf(c, f.meshConfig(routes))
	if err != nil {
		return mesh.Config{}, err
	}
	c.Epoch = epoch
	return c, nil
}

// flows is everything that may flow while routes lead through the egress gateway.
// With the NetworkPolicies off the proxies are told of no allowance either.
func (f *Facts) flows(c mesh.Config) []mesh.Flow {
	np := f.Mesh.Spec.Egress.NetworkPolicy
	if np.Mode == v1alpha1.PolicyOff {
		return nil
	}
	facts := allowance.Facts{
		Topology: c.Name, Namespace: c.Namespace, OperatorNamespace: f.Settings.Namespace,
		Members: f.memberPeers(), Bypass: c.Bypass, Allow: np.Allow,
		APIServerForMembers: np.APIServer,
		DNS:                 f.Cluster.DNS, NodeDNS: f.Cluster.NodeDNS, APIServer: f.Cluster.APIServer,
	}
	if f.Parts.Service != nil {
		facts.ControlPlane = f.Parts.Service.Spec.ClusterIPs
	}
	if s := f.Parts.Gateways[revision.Egress].Service; s != nil {
		facts.Egress = s.Spec.ClusterIPs
	}
	return allowance.Flows(facts)
}

// memberPeers are the member selectors less the namespaces that are never members,
// which a selector such as "all but" covers too, and those that another mesh has.
func (f *Facts) memberPeers() []metav1.LabelSelector {
	without := append(f.never(), f.Members.Contested...)
	var out []metav1.LabelSelector
	for _, s := range membership.Selectors(f.Mesh) {
		out = append(out, *membership.Without(s, without))
	}
	return out
}

// meshConfig is the Istio MeshConfig of this mesh.
func (f *Facts) meshConfig(routes transition.Kind) map[string]any {
	mode := "ALLOW_ANY"
	if EgressPolicy(f.Mesh, routes) == v1alpha1.RegistryOnly {
		mode = "REGISTRY_ONLY"
	}
	m := map[string]any{
		"rootNamespace":         f.Mesh.Spec.Namespace,
		"trustDomain":           f.Mesh.Spec.Trust.Domain,
		"outboundTrafficPolicy": map[string]any{"mode": mode},
	}
	if l := f.Mesh.Spec.Telemetry.AccessLog; l != nil {
		m["accessLogFile"] = l.File
		m["accessLogEncoding"] = l.Encoding
		if l.Format != "" {
			m["accessLogFormat"] = l.Format
		}
	}
	return m
}

// EgressPolicy is what happens to traffic for unregistered hosts while this
// topology holds: what spec says, else what the topology stands for. Through the
// egress gateway only registered hosts can go.
func EgressPolicy(m *v1alpha1.MeshTopology, holds transition.Kind) v1alpha1.EgressPolicy {
	switch {
	case holds == v1alpha1.EgressGateway:
		return v1alpha1.RegistryOnly
	case m.Spec.Egress.Policy != "":
		return m.Spec.Egress.Policy
	case holds == v1alpha1.IngressOnly:
		return v1alpha1.AllowAny
	}
	return v1alpha1.RegistryOnly
}

// tellsDiscovery is the mode if proxies have to be told: each agent knows best how it
// takes everything.
func (f *Facts) tellsDiscovery() string {
	if d := discovery(f.Mesh); d != v1alpha1.DiscoverAll {
		return string(d)
	}
	return ""
}

// discovery is when new sidecars learn of services.
func discovery(m *v1alpha1.MeshTopology) v1alpha1.DiscoveryMode {
	return cmp.Or(m.Spec.Proxy.Discovery, v1alpha1.DiscoverAll)
}

func bypass(b v1alpha1.Bypass) mesh.Bypass {
	out := mesh.Bypass{Name: b.Name, Namespaces: b.NamespaceSelector, Pods: b.PodSelector, CIDR: b.CIDR}
	for _, p := range b.Ports {
		out.Ports = append(out.Ports, int(p))
	}
	return out
}

// epochOf names the content of a configuration.
func epochOf(c mesh.Config, meshConfig map[string]any) (string, error) {
	c.Epoch = ""
	b, err := json.Marshal([]any{c, meshConfig})
	if err != nil {
		return "", fmt.Errorf("name the epoch: %w", err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))[:16], nil
}

// data is the content of ConfigMap isthmus-<name>.
func (f *Facts) data(s transition.State, c mesh.Config) (map[string]any, error) {
	config, err := c.Marshal()
	if err != nil {
		return nil, err
	}
	state, err := s.Marshal()
	if err != nil {
		return nil, err
	}
	meshText, err := yaml.Marshal(f.meshConfig(s.Routes()))
	if err != nil {
		return nil, fmt.Errorf("marshal mesh config: %w", err)
	}
	return map[string]any{mesh.ConfigKey: config, mesh.StateKey: state, mesh.MeshKey: string(meshText)}, nil
}

func (f *Facts) version() string {
	switch {
	case f.Mesh.Spec.Version != "":
		return f.Mesh.Spec.Version
	case f.Mesh.Status.Version != "":
		return f.Mesh.Status.Version
	}
	return f.Settings.Version
}

func (f *Facts) revision() string { return version.Revision(f.Mesh.Name, f.version()) }

func (f *Facts) registry() string {
	if r := f.Mesh.Spec.Images.Registry; r != "" {
		return r
	}
	return f.Settings.Registry
}

func (f *Facts) image(name string) string {
	return f.registry() + "/" + name + ":" + f.version()
}

// owner is the reference that lets everything go with the MeshTopology, even if
// the operator is gone.
func (f *Facts) owner() metav1.OwnerReference {
	return metav1.OwnerReference{
		APIVersion: v1alpha1.GroupVersion.String(), Kind: "MeshTopology", Name: f.Mesh.Name, UID: f.Mesh.UID,
	}
}
