// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package mutation

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// party is one end of a connection: a pod, or an address that is no pod's.
type party struct {
	namespace string // of the pod; empty for an address
	labels    map[string]string
	address   string
}

// connection is an attempt of one party to reach another at a port.
type connection struct {
	from, to party
	protocol corev1.Protocol
	port     int32
}

// world is what NetworkPolicies are judged in.
type world struct {
	namespaces map[string]map[string]string // labels by name
	policies   []*networkingv1.NetworkPolicy
	// strict enforcers take an ipBlock to mean addresses that are no pods'.
	strict bool
}

// allows is the definition: a pod that policies of a direction select may do what
// any one of them allows; one that none selects may do everything.
func (w world) allows(c connection) bool {
	return w.direction(c, c.from, c.to, networkingv1.PolicyTypeEgress) && w.direction(c, c.to, c.from, networkingv1.PolicyTypeIngress)
}

func (w world) direction(c connection, of, peer party, direction networkingv1.PolicyType) bool {
	isolated := false
	for _, p := range w.policies {
		if of.namespace == "" || p.Namespace != of.namespace || !slices.Contains(p.Spec.PolicyTypes, direction) || !selects(&p.Spec.PodSelector, of.labels) {
			continue
		}
		isolated = true
		for _, r := range rules(p, direction) {
			if w.peers(r.peers, p.Namespace, peer) && ports(r.ports, c) {
				return true
			}
		}
	}
	return !isolated
}

// rule is a rule of either direction.
type rule struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

func rules(p *networkingv1.NetworkPolicy, direction networkingv1.PolicyType) []rule {
	var out []rule
	if direction == networkingv1.PolicyTypeEgress {
		for _, r := range p.Spec.Egress {
			out = append(out, rule{r.To, r.Ports})
		}
		return out
	}
	for _, r := range p.Spec.Ingress {
		out = append(out, rule{r.From, r.Ports})
	}
	return out
}

func (w world) peers(peers []networkingv1.NetworkPolicyPeer, namespace string, who party) bool {
	return len(peers) == 0 || slices.ContainsFunc(peers, func(p networkingv1.NetworkPolicyPeer) bool { return w.peer(p, namespace, who) })
}

func (w world) peer(p networkingv1.NetworkPolicyPeer, namespace string, who party) bool {
	if p.IPBlock != nil {
		return (who.namespace == "" || !w.strict) && covers(p.IPBlock, who.address)
	}
	switch {
	case who.namespace == "":
		return false
	case p.NamespaceSelector == nil && who.namespace != namespace:
		return false
	case p.NamespaceSelector != nil && !selects(p.NamespaceSelector, w.namespaces[who.namespace]):
		return false
	}
	return p.PodSelector == nil || selects(p.PodSelector, who.labels)
}

func covers(b *networkingv1.IPBlock, address string) bool {
	a, err := netip.ParseAddr(address)
	in := func(cidr string) bool {
		p, bad := netip.ParsePrefix(cidr)
		return err == nil && bad == nil && p.Contains(a)
	}
	return in(b.CIDR) && !slices.ContainsFunc(b.Except, in)
}

func selects(s *metav1.LabelSelector, l map[string]string) bool {
	sel, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && sel.Matches(labels.Set(l))
}

func ports(ports []networkingv1.NetworkPolicyPort, c connection) bool {
	return len(ports) == 0 || slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
		protocol := corev1.ProtocolTCP
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		switch {
		case protocol != c.protocol:
			return false
		case p.Port == nil:
			return true
		case p.EndPort != nil:
			return p.Port.IntVal <= c.port && c.port <= *p.EndPort
		}
		return p.Port.IntVal == c.port
	})
}
