// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package enforce

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/policy"
)

// pod converts a pod, unless it has no address that is its own: on the host's
// network, or ended.
func pod(o *corev1.Pod) (policy.Pod, bool) {
	if o.Spec.HostNetwork || o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed {
		return policy.Pod{}, false
	}
	p := policy.Pod{Namespace: o.Namespace, Name: o.Name, Labels: o.Labels}
	for _, ip := range o.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			p.IPs = append(p.IPs, a)
		}
	}
	for _, c := range o.Spec.Containers {
		p.Ports = append(p.Ports, named(c)...)
	}
	for _, c := range o.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			p.Ports = append(p.Ports, named(c)...)
		}
	}
	return p, true
}

func named(c corev1.Container) []policy.NamedPort {
	var ports []policy.NamedPort
	for _, p := range c.Ports {
		if p.Name != "" {
			//nolint:gosec // a port
			ports = append(ports, policy.NamedPort{Name: p.Name, Protocol: cmp.Or(p.Protocol, corev1.ProtocolTCP), Port: uint16(p.ContainerPort)})
		}
	}
	return ports
}

// owns says whether the sandbox is the pod's. The kubelet runs static pods under
// another UID than that of the object that stands for them.
func owns(o *corev1.Pod, uid string) bool {
	return string(o.UID) == uid || (uid != "" && o.Annotations[corev1.MirrorPodAnnotationKey] == uid)
}

// sortPolicies makes the same policies the same rules.
func sortPolicies(all []*networkingv1.NetworkPolicy) {
	slices.SortFunc(all, func(a, b *networkingv1.NetworkPolicy) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}
