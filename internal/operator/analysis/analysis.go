// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package analysis finds what NetworkPolicies of others open beyond the allowance.
// NetworkPolicies add up, so if each policy alone opens no more than the allowance,
// and ours isolates every pod, then no pod may more, whatever its labels are.
//
// It is pure and exact for addresses, ports and protocols. Selectors are compared
// by what they ask for, requirement by requirement: that can raise a false alarm,
// and cannot miss a hole.
package analysis

import (
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// Cluster is what the allowance and the namespaces are.
type Cluster struct {
	Allowance []topology.Flow
	// Namespaces are the labels of namespaces by name.
	Namespaces map[string]map[string]string
}

// Holes lists the rules of a policy that open more than the allowance does to the
// pods that the policy selects; for people, in the order of the rules.
func (c Cluster) Holes(np *networkingv1.NetworkPolicy) []string {
	if !restrictsEgress(np) {
		return nil
	}
	allowed := c.flows(np)
	var out []string
	for i, rule := range np.Spec.Egress {
		need := ports(rule.Ports)
		if len(rule.To) == 0 {
			out = append(out, fmt.Sprintf("rule %d: everything", i+1))
		}
		for _, peer := range rule.To {
			if !c.covered(np.Namespace, peer, need, allowed) {
				out = append(out, fmt.Sprintf("rule %d: %s", i+1, describe(peer)))
			}
		}
	}
	return out
}

func restrictsEgress(np *networkingv1.NetworkPolicy) bool {
	if len(np.Spec.PolicyTypes) == 0 {
		return len(np.Spec.Egress) > 0
	}
	return slices.Contains(np.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
}

func describe(p networkingv1.NetworkPolicyPeer) string {
	if p.IPBlock != nil {
		return "ipBlock " + p.IPBlock.CIDR
	}
	text := ""
	if p.NamespaceSelector != nil {
		text = "namespaces " + metav1.FormatLabelSelector(p.NamespaceSelector)
	}
	if p.PodSelector != nil {
		text += " pods " + metav1.FormatLabelSelector(p.PodSelector)
	}
	return text
}

// flows are the allowance's for every pod that the policy selects.
func (c Cluster) flows(np *networkingv1.NetworkPolicy) []topology.Flow {
	var out []topology.Flow
	for _, f := range c.Allowance {
		if f.From.CIDR != "" || !c.inNamespaces(np.Namespace, f.From) {
			continue
		}
		if f.From.Pods == nil || within(&np.Spec.PodSelector, f.From.Pods) {
			out = append(out, f)
		}
	}
	return out
}

// inNamespaces tells whether the namespace is among the peer's.
func (c Cluster) inNamespaces(name string, p topology.Peer) bool {
	if p.Namespaces == nil {
		return p.Namespace == name
	}
	s, err := metav1.LabelSelectorAsSelector(p.Namespaces)
	return err == nil && s.Matches(labels.Set(c.Namespaces[name]))
}

func (c Cluster) covered(namespace string, p networkingv1.NetworkPolicyPeer, need []portRange, allowed []topology.Flow) bool {
	if p.IPBlock != nil {
		return addressesCovered(p.IPBlock, need, allowed)
	}
	for _, f := range allowed {
		if slices.ContainsFunc(f.To, func(q topology.Peer) bool { return c.contains(namespace, p, q) }) {
			need = withoutPorts(need, f.Ports)
		}
	}
	return len(need) == 0
}

// contains tells whether all that the policy's peer selects is selected by q.
func (c Cluster) contains(namespace string, p networkingv1.NetworkPolicyPeer, q topology.Peer) bool {
	if q.CIDR != "" || q.Pods != nil && (p.PodSelector == nil || !within(p.PodSelector, q.Pods)) {
		return false
	}
	name, pinned := namespace, p.NamespaceSelector == nil
	if !pinned {
		name, pinned = p.NamespaceSelector.MatchLabels[corev1.LabelMetadataName], p.NamespaceSelector.MatchLabels[corev1.LabelMetadataName] != ""
	}
	switch {
	case pinned:
		return c.inNamespaces(name, q)
	case q.Namespaces == nil:
		return false
	}
	return within(p.NamespaceSelector, q.Namespaces)
}

// within tells whether whatever the first selector selects, the second does: each
// requirement of the second follows from one of the first.
func within(a, b *metav1.LabelSelector) bool {
	sa, errA := metav1.LabelSelectorAsSelector(a)
	sb, errB := metav1.LabelSelectorAsSelector(b)
	if errA != nil || errB != nil {
		return false
	}
	have, _ := sa.Requirements()
	want, selectable := sb.Requirements()
	if !selectable {
		return false
	}
	for _, w := range want {
		if !slices.ContainsFunc(have, func(h labels.Requirement) bool { return implies(h, w) }) {
			return false
		}
	}
	return true
}

func implies(h, w labels.Requirement) bool {
	if h.Key() != w.Key() {
		return false
	}
	in, without := h.Values(), w.Values()
	switch kindOf(w) {
	case metav1.LabelSelectorOpIn:
		return kindOf(h) == metav1.LabelSelectorOpIn && without.HasAll(in.UnsortedList()...)
	case metav1.LabelSelectorOpNotIn:
		switch kindOf(h) {
		case metav1.LabelSelectorOpIn:
			return !without.HasAny(in.UnsortedList()...)
		case metav1.LabelSelectorOpNotIn:
			return in.HasAll(without.UnsortedList()...)
		}
		return kindOf(h) == metav1.LabelSelectorOpDoesNotExist
	case metav1.LabelSelectorOpExists:
		return kindOf(h) == metav1.LabelSelectorOpIn || kindOf(h) == metav1.LabelSelectorOpExists
	}
	return kindOf(h) == metav1.LabelSelectorOpDoesNotExist
}
