// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"slices"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// GatewayClusters lists a gateway's clusters: only what its routes lead to.
func GatewayClusters(v *snapshot.View) []string {
	s := newScope(v)
	names := []string{blackHoleCluster}
	for _, k := range gatewayDestinations(s) {
		if _, ok := s.destination(k); ok {
			names = append(names, outboundCluster(k.port, k.subset, k.host))
		}
	}
	return append(names, gatewayDynamics(v)...)
}

// GatewayCluster resolves a gateway's cluster, or nil.
func GatewayCluster(v *snapshot.View, name string) *ir.Cluster {
	return outwardCluster(newScope(v), name)
}

// GatewayAssignments lists the endpoint sets of a gateway.
func GatewayAssignments(v *snapshot.View) []string {
	s := newScope(v)
	var names []string
	for _, k := range gatewayDestinations(s) {
		names = append(names, s.assignmentOf(k)...)
	}
	return names
}

// gatewayDestinations are all destinations of the VirtualServices that are bound
// to one of the gateway's servers.
func gatewayDestinations(s *scope) []subsetKey {
	var out []subsetKey
	seen := map[subsetKey]bool{}
	for _, srv := range servers(s.v) {
		r := gatewayRouting(s, srv)
		for _, b := range boundTo(s, srv) {
			for _, d := range r.destinations(b) {
				if !seen[d] {
					seen[d] = true
					out = append(out, d)
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b subsetKey) int { return compareKeys(a, b) })
	return out
}

func (r *routing) destinations(b binding) []subsetKey {
	var out []subsetKey
	add := func(d *networking.Destination, ns string) {
		if d.GetHost() != "" {
			out = append(out, r.destination(d, ns))
		}
	}
	for _, h := range r.delegated(b.vs) {
		for _, d := range h.route.GetRoute() {
			add(d.GetDestination(), h.vs.Namespace)
		}
		add(h.route.GetMirror(), h.vs.Namespace)
		for _, m := range h.route.GetMirrors() {
			add(m.GetDestination(), h.vs.Namespace)
		}
	}
	for _, t := range b.vs.Spec.GetTls() {
		for _, d := range t.GetRoute() {
			add(d.GetDestination(), b.vs.Namespace)
		}
	}
	for _, t := range b.vs.Spec.GetTcp() {
		for _, d := range t.GetRoute() {
			add(d.GetDestination(), b.vs.Namespace)
		}
	}
	return out
}
