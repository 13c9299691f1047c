// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package policy renders NetworkPolicies from an allowance. Purely: flows in,
// policies out. A policy exists even if no flow concerns it: then nothing may flow.
package policy

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// nameLabel is on every namespace, with its name.
const nameLabel = corev1.LabelMetadataName

// Namespace is a member to render for.
type Namespace struct {
	Name   string
	Labels map[string]string
}

// Member renders the policies of one member namespace: the first isolates all of
// its pods and allows what all may; one more for each set of pods that may more.
func Member(ns Namespace, name string, flows []topology.Flow) ([]*networkingv1.NetworkPolicy, error) {
	all := NetworkPolicy(ns.Name, name, metav1.LabelSelector{}, networkingv1.PolicyTypeEgress)
	some := map[string]*networkingv1.NetworkPolicy{}
	var order []string
	for _, f := range flows {
		from, err := covers(f.From, ns)
		if err != nil {
			return nil, err
		}
		if !from {
			continue
		}
		into := all
		if f.From.Pods != nil {
			key, err := short(f.From.Pods)
			if err != nil {
				return nil, err
			}
			if some[key] == nil {
				some[key] = NetworkPolicy(ns.Name, name+"-"+key, *f.From.Pods, networkingv1.PolicyTypeEgress)
				order = append(order, key)
			}
			into = some[key]
		}
		into.Spec.Egress = appendRule(into.Spec.Egress, egressRule(f))
	}
	out := []*networkingv1.NetworkPolicy{all}
	slices.Sort(order)
	for _, k := range order {
		out = append(out, some[k])
	}
	return out, nil
}

// Around renders the policy around one of the mesh's own parts, for the directions
// given: what flows from it and what flows to it.
func Around(part topology.Peer, name string, flows []topology.Flow, types ...networkingv1.PolicyType) *networkingv1.NetworkPolicy {
	p := NetworkPolicy(part.Namespace, name, *part.Pods, types...)
	for _, f := range flows {
		if slices.Contains(types, networkingv1.PolicyTypeEgress) && reflect.DeepEqual(f.From, part) {
			p.Spec.Egress = appendRule(p.Spec.Egress, egressRule(f))
		}
		to := func(q topology.Peer) bool { return reflect.DeepEqual(q, part) }
		if slices.Contains(types, networkingv1.PolicyTypeIngress) && slices.ContainsFunc(f.To, to) {
			p.Spec.Ingress = appendRule(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: peers([]topology.Peer{f.From}), Ports: ports(f.Ports)})
		}
	}
	return p
}

// NetworkPolicy is a policy that allows nothing in these directions.
func NetworkPolicy(namespace, name string, pods metav1.LabelSelector, types ...networkingv1.PolicyType) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "NetworkPolicy"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       networkingv1.NetworkPolicySpec{PodSelector: pods, PolicyTypes: types},
	}
}

// appendRule leaves out a rule that is there already, as when two member selectors
// cover one namespace.
func appendRule[R any](rules []R, r R) []R {
	if slices.ContainsFunc(rules, func(q R) bool { return reflect.DeepEqual(q, r) }) {
		return rules
	}
	return append(rules, r)
}

func egressRule(f topology.Flow) networkingv1.NetworkPolicyEgressRule {
	return networkingv1.NetworkPolicyEgressRule{To: peers(f.To), Ports: ports(f.Ports)}
}

// covers tells whether the peer's pods are in the namespace.
func covers(p topology.Peer, ns Namespace) (bool, error) {
	if p.CIDR != "" {
		return false, nil
	}
	if p.Namespaces == nil {
		return p.Namespace == ns.Name, nil
	}
	s, err := metav1.LabelSelectorAsSelector(p.Namespaces)
	if err != nil {
		return false, fmt.Errorf("namespace selector: %w", err)
	}
	return s.Matches(labels.Set(ns.Labels)), nil
}

// peers renders a list of peers; an empty one stands for anyone, who is not
// written as a range of addresses because to some enforcers that means no pods.
func peers(in []topology.Peer) []networkingv1.NetworkPolicyPeer {
	var out []networkingv1.NetworkPolicyPeer
	for _, p := range in {
		switch {
		case p.CIDR == "0.0.0.0/0" && len(p.Except) == 0:
			return nil
		case p.CIDR != "":
			out = append(out, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: p.CIDR, Except: p.Except}})
		case p.Namespaces != nil:
			out = append(out, networkingv1.NetworkPolicyPeer{NamespaceSelector: p.Namespaces, PodSelector: p.Pods})
		default:
			byName := &metav1.LabelSelector{MatchLabels: map[string]string{nameLabel: p.Namespace}}
			out = append(out, networkingv1.NetworkPolicyPeer{NamespaceSelector: byName, PodSelector: p.Pods})
		}
	}
	return out
}

func ports(in []topology.Port) []networkingv1.NetworkPolicyPort {
	var out []networkingv1.NetworkPolicyPort
	for _, p := range in {
		protocol := corev1.Protocol(p.Protocol)
		q := networkingv1.NetworkPolicyPort{Protocol: &protocol}
		if p.Number != 0 {
			n := intstr.FromInt(p.Number)
			q.Port = &n
		}
		if p.End != 0 {
			end := int32(p.End)
			q.EndPort = &end
		}
		out = append(out, q)
	}
	return out
}

// short names a selector by its content.
func short(s *metav1.LabelSelector) (string, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("name a selector: %w", err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))[:8], nil
}
