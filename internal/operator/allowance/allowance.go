// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package allowance decides what may flow in topology EgressGateway: one pure
// function from facts to flows. NetworkPolicies are rendered from its result and
// isthmusd is told it, so that policy and proxy cannot disagree.
package allowance

import (
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// Ports of the mesh's own parts.
const (
	discoveryPort    = 15012
	webhookPort      = 15017
	monitoringPort   = 15014
	distributionPort = 15016
	readyPort        = 8080
	// EgressPort is where the egress gateway takes connections.
	EgressPort = 15443
)

// Facts are what the allowance depends on.
type Facts struct {
	// Topology is its name, Namespace its control plane's.
	Topology, Namespace string
	// OperatorNamespace is where the operator asks from.
	OperatorNamespace string
	// Members are namespace selectors, used word for word.
	Members []metav1.LabelSelector
	Bypass  []topology.Bypass
	Allow   []v1alpha1.Allow
	// APIServerForMembers is spec.egress.networkPolicy.apiServer.
	APIServerForMembers v1alpha1.APIServerAccess
	// DNS and APIServer are services of the cluster; NodeDNS is the cache of names on
	// each node, where there is one.
	DNS, NodeDNS, APIServer Service
	// ControlPlane and Egress are addresses of the mesh's own Services, for
	// enforcers that look before the address is translated.
	ControlPlane, Egress []string
}

// Service is where something is reached, before and after address translation.
type Service struct {
	// Namespace and Selector name the pods; nil if there are none to select.
	Namespace string
	Selector  map[string]string
	// Addresses of Service and endpoints.
	Addresses []string
	Ports     []topology.Port
}

// Flows is everything that may flow, in an order that depends on the facts only.
func Flows(f Facts) []topology.Flow {
	out := slices.Concat(f.members(), f.bypass(), f.ingress(), f.egress(), f.controlPlane())
	return slices.DeleteFunc(out, func(l topology.Flow) bool { return len(l.To) == 0 })
}

func (f Facts) controlPlanePods() topology.Peer {
	return Part(f.Topology, f.Namespace, v1alpha1.ComponentControlPlane)
}

func (f Facts) ingressPods() topology.Peer {
	return Part(f.Topology, f.Namespace, v1alpha1.ComponentIngressGateway)
}

func (f Facts) egressPods() topology.Peer {
	return Part(f.Topology, f.Namespace, v1alpha1.ComponentEgressGateway)
}

// Part is the pods of one of the mesh's own parts.
func Part(name, namespace, component string) topology.Peer {
	return topology.Peer{Namespace: namespace, Pods: &metav1.LabelSelector{MatchLabels: map[string]string{
		v1alpha1.LabelTopology: name, v1alpha1.LabelComponent: component,
	}}}
}

// Anyone is every peer, in the cluster or not.
func Anyone() topology.Peer { return topology.Peer{CIDR: "0.0.0.0/0"} }

func (f Facts) members() []topology.Flow {
	var out []topology.Flow
	for i := range f.Members {
		from := topology.Peer{Namespaces: &f.Members[i]}
		out = append(out,
			f.toDNS(from),
			f.toControlPlane(from),
			topology.Flow{From: from, To: f.memberPeers(), Why: "Members talk to each other."},
			topology.Flow{From: from, To: []topology.Peer{f.ingressPods()}, Why: "Members may call in by an ingress gateway."},
			f.toEgress(from),
		)
		if f.APIServerForMembers != v1alpha1.APIServerNone {
			out = append(out, f.toAPIServer(from))
		}
		for _, a := range f.Allow {
			out = append(out, topology.Flow{From: from, To: allowPeers(a.To), Ports: allowPorts(a.Ports), Why: "spec.egress.networkPolicy.allow: " + a.Name + "."})
		}
	}
	return out
}

func (f Facts) bypass() []topology.Flow {
	var out []topology.Flow
	for _, b := range f.Bypass {
		var ports []topology.Port
		for _, n := range b.Ports {
			ports = append(ports, topology.Port{Protocol: "TCP", Number: n}, topology.Port{Protocol: "UDP", Number: n})
		}
		for i := range f.Members {
			out = append(out, topology.Flow{
				From:  topology.Peer{Namespaces: both(&f.Members[i], b.Namespaces), Pods: b.Pods},
				To:    []topology.Peer{{CIDR: b.CIDR}},
				Ports: ports,
				Why:   "spec.egress.bypass: " + b.Name + ".",
			})
		}
	}
	return out
}

func (f Facts) ingress() []topology.Flow {
	from := f.ingressPods()
	return []topology.Flow{
		f.toDNS(from),
		f.toControlPlane(from),
		{From: from, To: f.memberPeers(), Why: "Ingress gateways pass requests on to members."},
		f.toEgress(from),
	}
}

func (f Facts) egress() []topology.Flow {
	from := f.egressPods()
	return []topology.Flow{
		f.toDNS(from),
		f.toControlPlane(from),
		{
			From: from,
			To: []topology.Peer{
				{CIDR: "0.0.0.0/0", Except: append([]string{"127.0.0.0/8", "169.254.0.0/16"}, f.apiServer(netip.Addr.Is4)...)},
				{CIDR: "::/0", Except: append([]string{"::1/128", "fe80::/10", "fd00:ec2::254/128"}, f.apiServer(netip.Addr.Is6)...)},
			},
			Why: "The egress gateway leaves the mesh, but not for the node, its metadata or the API server: it must be nobody's way there.",
		},
		{From: Anyone(), To: []topology.Peer{from}, Ports: tcp(15020, 15021, 15090), Why: "Health and metrics of the egress gateway."},
	}
}

func (f Facts) controlPlane() []topology.Flow {
	from := f.controlPlanePods()
	return []topology.Flow{
		f.toDNS(from),
		f.toAPIServer(from),
		f.toEgress(from),
		{From: Anyone(), To: []topology.Peer{from}, Ports: tcp(webhookPort), Why: "The API server calls the webhooks; its address cannot be known."},
		{From: Anyone(), To: []topology.Peer{from}, Ports: tcp(monitoringPort), Why: "Metrics of the control plane."},
		{From: topology.Peer{Namespace: f.OperatorNamespace}, To: []topology.Peer{from}, Ports: tcp(readyPort, distributionPort), Why: "The operator asks how far the configuration got."},
	}
}

func (f Facts) memberPeers() []topology.Peer {
	var out []topology.Peer
	for i := range f.Members {
		out = append(out, topology.Peer{Namespaces: &f.Members[i]})
	}
	return out
}

func (f Facts) toDNS(from topology.Peer) topology.Flow {
	to := append(f.DNS.pods(), f.NodeDNS.pods()...)
	to = append(to, addresses(slices.Concat(f.DNS.Addresses, f.NodeDNS.Addresses))...)
	return topology.Flow{From: from, To: to, Ports: f.DNS.Ports, Why: "Names are resolved by the cluster's DNS."}
}

func (f Facts) toAPIServer(from topology.Peer) topology.Flow {
	return topology.Flow{From: from, To: f.APIServer.peers(), Ports: f.APIServer.Ports, Why: "The API server."}
}

func (f Facts) toControlPlane(from topology.Peer) topology.Flow {
	return topology.Flow{From: from, To: append([]topology.Peer{f.controlPlanePods()}, addresses(f.ControlPlane)...), Ports: tcp(discoveryPort), Why: "Proxies ask the control plane."}
}

func (f Facts) toEgress(from topology.Peer) topology.Flow {
	return topology.Flow{From: from, To: append([]topology.Peer{f.egressPods()}, addresses(f.Egress)...), Ports: tcp(EgressPort), Why: "Registered external hosts are reached through the egress gateway."}
}

// apiServer lists the API server's addresses of one family as ranges.
func (f Facts) apiServer(family func(netip.Addr) bool) []string {
	var out []string
	for _, p := range addresses(f.APIServer.Addresses) {
		if prefix, err := netip.ParsePrefix(p.CIDR); err == nil && family(prefix.Addr()) {
			out = append(out, p.CIDR)
		}
	}
	return out
}

func (s Service) peers() []topology.Peer { return append(s.pods(), addresses(s.Addresses)...) }

func (s Service) pods() []topology.Peer {
	if len(s.Selector) == 0 {
		return nil
	}
	return []topology.Peer{{Namespace: s.Namespace, Pods: &metav1.LabelSelector{MatchLabels: s.Selector}}}
}

// addresses turns IP addresses into peers, sorted and once each.
func addresses(ips []string) []topology.Peer {
	var parsed []netip.Addr
	for _, s := range ips {
		if ip, err := netip.ParseAddr(s); err == nil {
			parsed = append(parsed, ip.Unmap())
		}
	}
	slices.SortFunc(parsed, netip.Addr.Compare)
	var out []topology.Peer
	for _, ip := range slices.Compact(parsed) {
		out = append(out, topology.Peer{CIDR: netip.PrefixFrom(ip, ip.BitLen()).String()})
	}
	return out
}

func tcp(ports ...int) []topology.Port {
	var out []topology.Port
	for _, p := range ports {
		out = append(out, topology.Port{Protocol: string(corev1.ProtocolTCP), Number: p})
	}
	return out
}

func allowPeers(p v1alpha1.AllowPeer) []topology.Peer {
	if p.CIDR != "" {
		return []topology.Peer{{CIDR: p.CIDR, Except: p.Except}}
	}
	return []topology.Peer{{Namespaces: p.NamespaceSelector, Pods: p.PodSelector}}
}

func allowPorts(ports []v1alpha1.AllowPort) []topology.Port {
	var out []topology.Port
	for _, p := range ports {
		t := topology.Port{Protocol: p.Protocol, Number: int(p.Number)}
		if p.End != nil {
			t.End = int(*p.End)
		}
		out = append(out, t)
	}
	return out
}

// both selects what both selectors select; nil selects everything.
func both(a, b *metav1.LabelSelector) *metav1.LabelSelector {
	if b == nil {
		return a
	}
	out := a.DeepCopy()
	out.MatchExpressions = append(out.MatchExpressions, b.DeepCopy().MatchExpressions...)
	for _, k := range slices.Sorted(maps.Keys(b.MatchLabels)) {
		out.MatchExpressions = append(out.MatchExpressions, metav1.LabelSelectorRequirement{
			Key: k, Operator: metav1.LabelSelectorOpIn, Values: []string{b.MatchLabels[k]},
		})
	}
	return out
}
