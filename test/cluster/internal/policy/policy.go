// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package policy works out what NetworkPolicies allow: pods, namespaces and
// policies in, address ranges and ports out. It is pure; packages nft and enforce
// make it true.
package policy

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// State is what the API server knows.
type State struct {
	Pods       []Pod
	Namespaces map[string]map[string]string // labels by name
	Policies   []*networkingv1.NetworkPolicy
}

// Pod is a pod that has addresses of its own, so none on the host's network.
type Pod struct {
	Namespace string
	Name      string
	Labels    map[string]string
	IPs       []netip.Addr
	Ports     []NamedPort
	// Open is true while nothing is enforced for the pod itself, to play
	// networks that are late.
	Open bool
}

// NamedPort is a container's port that policies may refer to.
type NamedPort struct {
	Name     string
	Protocol corev1.Protocol
	Port     uint16
}

// Rules say for each isolated pod what it may still do.
type Rules struct {
	Pods []PodRules // sorted by namespace and name
}

// PodRules are the rules of one pod. A direction that is nil is not isolated.
type PodRules struct {
	Pod     string // namespace/name
	IPs     []netip.Addr
	Ingress *Direction
	Egress  *Direction
}

// Direction is what an isolated pod may still receive or send.
type Direction struct {
	Allows []Allow
}

// Allow permits traffic of any of the peers at any of the ports.
type Allow struct {
	Peers []Range // nil is everyone
	Block bool    // the peers were given as addresses, not as pods
	Ports []Ports // nil is every protocol and port
}

// Ports is a range of ports of one protocol.
type Ports struct {
	Protocol corev1.Protocol
	From, To uint16
}

// Options are where implementations of NetworkPolicy differ.
type Options struct {
	// NotBlocks are addresses that an ipBlock never means, although it covers them.
	NotBlocks []netip.Prefix
}

// Compile returns the rules of every pod that a policy selects.
func Compile(s State, o Options) Rules {
	c := compiler{state: s, options: o}
	var r Rules
	for _, p := range s.Pods {
		if p.Open {
			continue
		}
		if rules := c.pod(p); rules.Ingress != nil || rules.Egress != nil {
			r.Pods = append(r.Pods, rules)
		}
	}
	slices.SortFunc(r.Pods, func(a, b PodRules) int { return compare(a.Pod, b.Pod) })
	return r
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

type compiler struct {
	state   State
	options Options
}

func (c compiler) pod(p Pod) PodRules {
	r := PodRules{Pod: p.Namespace + "/" + p.Name, IPs: p.IPs}
	for _, np := range c.state.Policies {
		if np.Namespace != p.Namespace || !matches(&np.Spec.PodSelector, p.Labels) {
			continue
		}
		ingress, egress := directions(np)
		if ingress {
			r.Ingress = orNew(r.Ingress)
			for _, rule := range np.Spec.Ingress {
				r.Ingress.Allows = append(r.Ingress.Allows, c.ingress(np.Namespace, rule, p)...)
			}
		}
		if egress {
			r.Egress = orNew(r.Egress)
			for _, rule := range np.Spec.Egress {
				r.Egress.Allows = append(r.Egress.Allows, c.egress(np.Namespace, rule)...)
			}
		}
	}
	return r
}

func orNew(d *Direction) *Direction {
	if d == nil {
		return &Direction{}
	}
	return d
}

// directions applies the defaults of policyTypes, which the API server has done
// already except in tests.
func directions(np *networkingv1.NetworkPolicy) (ingress, egress bool) {
	if len(np.Spec.PolicyTypes) == 0 {
		return true, len(np.Spec.Egress) > 0
	}
	return slices.Contains(np.Spec.PolicyTypes, networkingv1.PolicyTypeIngress),
		slices.Contains(np.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
}

// ingress resolves named ports on the pod itself.
func (c compiler) ingress(namespace string, rule networkingv1.NetworkPolicyIngressRule, p Pod) []Allow {
	allows := c.peers(namespace, rule.From)
	if len(rule.Ports) == 0 {
		return allows
	}
	var ports []Ports
	for _, port := range rule.Ports {
		if r, ok := numbered(port); ok {
			ports = append(ports, r)
			continue
		}
		ports = append(ports, named(p, port)...)
	}
	return at(allows, ports)
}

// at restricts what is allowed to the ports. No port that the rule could mean is
// nothing, not everything.
func at(allows []Allow, ports []Ports) []Allow {
	if len(ports) == 0 {
		return nil
	}
	for i := range allows {
		allows[i].Ports = ports
	}
	return allows
}

// egress resolves named ports on the pods at the other end; an address outside of
// all pods has no names.
func (c compiler) egress(namespace string, rule networkingv1.NetworkPolicyEgressRule) []Allow {
	if len(rule.Ports) == 0 {
		return c.peers(namespace, rule.To)
	}
	var allows []Allow
	var ports []Ports
	for _, port := range rule.Ports {
		if r, ok := numbered(port); ok {
			ports = append(ports, r)
			continue
		}
		allows = append(allows, c.namedEgress(namespace, rule.To, port)...)
	}
	return append(allows, at(c.peers(namespace, rule.To), ports)...)
}

func (c compiler) namedEgress(namespace string, to []networkingv1.NetworkPolicyPeer, port networkingv1.NetworkPolicyPort) []Allow {
	byPort := map[Ports][]Range{}
	for _, p := range c.state.Pods {
		if !c.selectsAny(namespace, to, p) {
			continue
		}
		for _, r := range named(p, port) {
			byPort[r] = append(byPort[r], single(p.IPs)...)
		}
	}
	var allows []Allow
	for r, peers := range byPort {
		if len(peers) > 0 {
			allows = append(allows, Allow{Peers: merge(peers), Ports: []Ports{r}})
		}
	}
	slices.SortFunc(allows, func(a, b Allow) int { return int(a.Ports[0].From) - int(b.Ports[0].From) })
	return allows
}

// selectsAny says whether a pod is among the peers by selectors. No peers at all
// means everyone.
func (c compiler) selectsAny(namespace string, peers []networkingv1.NetworkPolicyPeer, p Pod) bool {
	if len(peers) == 0 {
		return true
	}
	return slices.ContainsFunc(peers, func(peer networkingv1.NetworkPolicyPeer) bool {
		return c.selects(namespace, peer, p)
	})
}

// peers allows the peers everything: those that are pods, and those that are
// blocks of addresses.
func (c compiler) peers(namespace string, peers []networkingv1.NetworkPolicyPeer) []Allow {
	if len(peers) == 0 {
		return []Allow{{}}
	}
	var pods, blocks []Range
	for _, peer := range peers {
		if peer.IPBlock != nil {
			blocks = append(blocks, c.block(peer.IPBlock)...)
			continue
		}
		for _, p := range c.state.Pods {
			if c.selects(namespace, peer, p) {
				pods = append(pods, single(p.IPs)...)
			}
		}
	}
	var allows []Allow
	if len(pods) > 0 {
		allows = append(allows, Allow{Peers: merge(pods)})
	}
	if len(blocks) > 0 {
		allows = append(allows, Allow{Peers: merge(blocks), Block: true})
	}
	return allows
}

func (c compiler) selects(namespace string, peer networkingv1.NetworkPolicyPeer, p Pod) bool {
	if peer.IPBlock != nil || (peer.PodSelector == nil && peer.NamespaceSelector == nil) {
		return false
	}
	if peer.NamespaceSelector == nil {
		if p.Namespace != namespace {
			return false
		}
	} else if labels, ok := c.state.Namespaces[p.Namespace]; !ok || !matches(peer.NamespaceSelector, labels) {
		return false
	}
	return peer.PodSelector == nil || matches(peer.PodSelector, p.Labels)
}

func (c compiler) block(b *networkingv1.IPBlock) []Range {
	p, err := netip.ParsePrefix(b.CIDR)
	if err != nil {
		return nil // the API server accepts none that is not valid
	}
	ranges := []Range{prefix(p)}
	for _, e := range b.Except {
		if x, err := netip.ParsePrefix(e); err == nil {
			ranges = subtract(ranges, prefix(x))
		}
	}
	for _, x := range c.options.NotBlocks {
		ranges = subtract(ranges, prefix(x))
	}
	return ranges
}
