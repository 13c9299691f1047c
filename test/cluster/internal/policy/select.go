// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// matches treats a selector that cannot be parsed as one that selects nothing;
// the API server accepts none.
func matches(s *metav1.LabelSelector, l map[string]string) bool {
	sel, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && sel.Matches(labels.Set(l))
}

// numbered is the range that the port stands for, unless it is a name.
func numbered(p networkingv1.NetworkPolicyPort) (Ports, bool) {
	r := Ports{Protocol: protocol(p), From: 0, To: 65535}
	switch {
	case p.Port == nil:
	case p.Port.Type == intstr.String:
		return Ports{}, false
	default:
		r.From = uint16(p.Port.IntVal) //nolint:gosec // a port
		r.To = r.From
		if p.EndPort != nil {
			r.To = uint16(*p.EndPort) //nolint:gosec // a port
		}
	}
	return r, true
}

// named are the pod's ports of that name and protocol.
func named(pod Pod, p networkingv1.NetworkPolicyPort) []Ports {
	var found []Ports
	for _, n := range pod.Ports {
		if n.Name == p.Port.StrVal && n.Protocol == protocol(p) {
			found = append(found, Ports{Protocol: n.Protocol, From: n.Port, To: n.Port})
		}
	}
	return found
}

func protocol(p networkingv1.NetworkPolicyPort) corev1.Protocol {
	if p.Protocol == nil {
		return corev1.ProtocolTCP
	}
	return *p.Protocol
}
