// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package mutation

import (
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// mutant is the set of policies less one thing.
type mutant struct {
	what     string
	policies []*networkingv1.NetworkPolicy
}

// mutants takes each thing out of the set: policies, directions, rules, peers,
// ports, exceptions, and each requirement of each selector.
func mutants(set []*networkingv1.NetworkPolicy) []mutant {
	var out []mutant
	for i, p := range set {
		name := p.Namespace + "/" + p.Name
		out = append(out, mutant{name + " as a whole", slices.Delete(slices.Clone(set), i, i+1)})
		for _, c := range cuts(p) {
			copied := p.DeepCopy()
			c.cut(copied)
			changed := slices.Clone(set)
			changed[i] = copied
			out = append(out, mutant{name + ": " + c.what, changed})
		}
	}
	return out
}

// cut is one thing to take out of a policy.
type cut struct {
	what string
	cut  func(*networkingv1.NetworkPolicy)
}

func cuts(p *networkingv1.NetworkPolicy) []cut {
	var out []cut
	for i, d := range p.Spec.PolicyTypes {
		out = append(out, cut{fmt.Sprintf("direction %s", d), func(p *networkingv1.NetworkPolicy) {
			p.Spec.PolicyTypes = slices.Delete(p.Spec.PolicyTypes, i, i+1)
		}})
	}
	out = append(out, selectorCuts("pods", &p.Spec.PodSelector, func(p *networkingv1.NetworkPolicy) *metav1.LabelSelector { return &p.Spec.PodSelector })...)
	for i, r := range p.Spec.Egress {
		at := fmt.Sprintf("egress rule %d", i)
		out = append(out, cut{at, func(p *networkingv1.NetworkPolicy) { p.Spec.Egress = slices.Delete(p.Spec.Egress, i, i+1) }})
		out = append(out, ruleCuts(at, rule{r.To, r.Ports}, func(p *networkingv1.NetworkPolicy) (*[]networkingv1.NetworkPolicyPeer, *[]networkingv1.NetworkPolicyPort) {
			return &p.Spec.Egress[i].To, &p.Spec.Egress[i].Ports
		})...)
	}
	for i, r := range p.Spec.Ingress {
		at := fmt.Sprintf("ingress rule %d", i)
		out = append(out, cut{at, func(p *networkingv1.NetworkPolicy) { p.Spec.Ingress = slices.Delete(p.Spec.Ingress, i, i+1) }})
		out = append(out, ruleCuts(at, rule{r.From, r.Ports}, func(p *networkingv1.NetworkPolicy) (*[]networkingv1.NetworkPolicyPeer, *[]networkingv1.NetworkPolicyPort) {
			return &p.Spec.Ingress[i].From, &p.Spec.Ingress[i].Ports
		})...)
	}
	return out
}

// ruleCuts takes peers and ports out of a rule. The last of either goes as well:
// then the rule means everyone, or every port.
func ruleCuts(at string, r rule, find func(*networkingv1.NetworkPolicy) (*[]networkingv1.NetworkPolicyPeer, *[]networkingv1.NetworkPolicyPort)) []cut {
	var out []cut
	for i, port := range r.ports {
		out = append(out, cut{fmt.Sprintf("%s, port %s/%s", at, *port.Protocol, port.Port), func(p *networkingv1.NetworkPolicy) {
			_, ports := find(p)
			*ports = slices.Delete(*ports, i, i+1)
		}})
	}
	if len(r.ports) > 1 {
		out = append(out, cut{at + ", all ports", func(p *networkingv1.NetworkPolicy) {
			_, ports := find(p)
			*ports = nil
		}})
	}
	if len(r.peers) > 1 {
		out = append(out, cut{at + ", all peers", func(p *networkingv1.NetworkPolicy) {
			peers, _ := find(p)
			*peers = nil
		}})
	}
	for i, peer := range r.peers {
		one := fmt.Sprintf("%s, peer %s", at, describe(peer))
		out = append(out, cut{one, func(p *networkingv1.NetworkPolicy) {
			peers, _ := find(p)
			*peers = slices.Delete(*peers, i, i+1)
		}})
		at := func(p *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicyPeer {
			peers, _ := find(p)
			return &(*peers)[i]
		}
		out = append(out, peerCuts(one, peer, at)...)
	}
	return out
}

func peerCuts(one string, peer networkingv1.NetworkPolicyPeer, at func(*networkingv1.NetworkPolicy) *networkingv1.NetworkPolicyPeer) []cut {
	var out []cut
	if b := peer.IPBlock; b != nil {
		for i, e := range b.Except {
			out = append(out, cut{one + ", except " + e, func(p *networkingv1.NetworkPolicy) {
				b := at(p).IPBlock
				b.Except = slices.Delete(b.Except, i, i+1)
			}})
		}
	}
	if peer.NamespaceSelector != nil {
		out = append(out, selectorCuts(one+", namespaces", peer.NamespaceSelector, func(p *networkingv1.NetworkPolicy) *metav1.LabelSelector { return at(p).NamespaceSelector })...)
	}
	if peer.PodSelector != nil {
		out = append(out, selectorCuts(one+", pods", peer.PodSelector, func(p *networkingv1.NetworkPolicy) *metav1.LabelSelector { return at(p).PodSelector })...)
	}
	return out
}

func selectorCuts(at string, s *metav1.LabelSelector, find func(*networkingv1.NetworkPolicy) *metav1.LabelSelector) []cut {
	var out []cut
	for key := range s.MatchLabels {
		out = append(out, cut{at + " without " + key, func(p *networkingv1.NetworkPolicy) { delete(find(p).MatchLabels, key) }})
	}
	for i, e := range s.MatchExpressions {
		out = append(out, cut{fmt.Sprintf("%s without %s %s", at, e.Key, e.Operator), func(p *networkingv1.NetworkPolicy) {
			s := find(p)
			s.MatchExpressions = slices.Delete(s.MatchExpressions, i, i+1)
		}})
		for j, v := range e.Values {
			if len(e.Values) > 1 {
				out = append(out, cut{fmt.Sprintf("%s without %s %s %s", at, e.Key, e.Operator, v), func(p *networkingv1.NetworkPolicy) {
					e := &find(p).MatchExpressions[i]
					e.Values = slices.Delete(e.Values, j, j+1)
				}})
			}
		}
	}
	return out
}

func describe(p networkingv1.NetworkPolicyPeer) string {
	if p.IPBlock != nil {
		return p.IPBlock.CIDR
	}
	var out string
	if p.NamespaceSelector != nil {
		out = "namespaces " + metav1.FormatLabelSelector(p.NamespaceSelector)
	}
	if p.PodSelector != nil {
		out += " pods " + metav1.FormatLabelSelector(p.PodSelector)
	}
	return out
}
