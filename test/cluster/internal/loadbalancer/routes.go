// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package loadbalancer

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Routes say for each load balancer's address which nodes take its connections:
// those that are ready and, if a Service wants its clients' addresses kept, have an
// endpoint of their own. There may be none.
type Routes map[netip.Addr][]netip.Addr

// RoutesOf are the routes to the Services' addresses, the ones that they have and
// those that they are about to get.
func RoutesOf(services []*corev1.Service, given map[types.NamespacedName]netip.Addr, slicesOf []*discoveryv1.EndpointSlice, nodes []*corev1.Node) Routes {
	routes := Routes{}
	for _, s := range services {
		if s.Spec.Type != corev1.ServiceTypeLoadBalancer || s.Spec.LoadBalancerClass != nil {
			continue
		}
		key := types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
		var own []netip.Addr
		if ip, ok := given[key]; ok {
			own = append(own, ip)
		}
		for _, i := range s.Status.LoadBalancer.Ingress {
			if ip, err := netip.ParseAddr(i.IP); err == nil {
				own = append(own, ip)
			}
		}
		if len(own) == 0 {
			continue
		}
		var local map[string]bool
		if s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
			local = nodesWith(key, slicesOf)
		}
		hops := usable(nodes, local)
		for _, ip := range own {
			routes[ip] = hops
		}
	}
	return routes
}

// nodesWith are the names of the nodes that have a ready endpoint of the Service.
func nodesWith(service types.NamespacedName, all []*discoveryv1.EndpointSlice) map[string]bool {
	nodes := map[string]bool{}
	for _, s := range all {
		if s.Namespace != service.Namespace || s.Labels[discoveryv1.LabelServiceName] != service.Name {
			continue
		}
		for _, e := range s.Endpoints {
			if e.NodeName != nil && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
				nodes[*e.NodeName] = true
			}
		}
	}
	return nodes
}

// usable are the addresses of the ready nodes, of those named only if names is not nil.
func usable(nodes []*corev1.Node, names map[string]bool) []netip.Addr {
	var all []netip.Addr
	for _, n := range nodes {
		_, excluded := n.Labels[corev1.LabelNodeExcludeBalancers]
		if excluded || !ready(n) || (names != nil && !names[n.Name]) {
			continue
		}
		for _, a := range n.Status.Addresses {
			if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP && ip.Is4() {
				all = append(all, ip)
			}
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all
}

func ready(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}
