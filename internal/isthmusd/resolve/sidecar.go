// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// SidecarListeners lists the listeners for what a sidecar's workload calls.
func SidecarListeners(v *snapshot.View) []string {
	s := newScope(v)
	return append(outboundListeners(s), inners(s)...)
}

// SidecarOwnListeners lists the listeners for what the workload serves.
func SidecarOwnListeners(*snapshot.View) []string { return []string{virtualInbound} }

// SidecarListener resolves a sidecar's listener; nil if there is none of that name.
func SidecarListener(v *snapshot.View, name string) *ir.Listener {
	if name == virtualInbound {
		return inboundListener(v)
	}
	return asking(v, sidecarListener(newScope(v), name))
}

func sidecarListener(s *scope, name string) *ir.Listener {
	switch {
	case name == virtualOutbound:
		return catchAll(s)
	case strings.HasPrefix(name, tunnelPrefix):
		return tunnelListener(s, name)
	case strings.HasPrefix(name, dynamicPrefix):
		return dynamicListener(s, name)
	}
	ip, port, ok := parseListener(name)
	switch {
	case !ok || reserved(port):
		return nil
	case ip == wildcardIP(s.v):
		return portListener(s, port)
	}
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return nil
	}
	return addressListener(s, addr, port)
}

// SidecarTables lists a sidecar's route tables.
func SidecarTables(v *snapshot.View) []string { return outboundTables(newScope(v)) }

// SidecarTable resolves a sidecar's route table without its SidecarHosts, or nil.
func SidecarTable(v *snapshot.View, name string) *ir.RouteConfig {
	return endedTable(v, outboundTable(newScope(v), name))
}

// SidecarHosts lists the virtual hosts of services, as "<table>/<host>".
func SidecarHosts(v *snapshot.View) []string { return serviceHosts(newScope(v)) }

// SidecarHost resolves one of them, or nil.
func SidecarHost(v *snapshot.View, name string) *ir.VirtualHost {
	return ended(v, serviceHost(newScope(v), name))
}

// SidecarUnregisteredHosts lists the virtual hosts that VirtualServices make known.
func SidecarUnregisteredHosts(v *snapshot.View) []string { return unregisteredHosts(newScope(v)) }

// SidecarUnregisteredHost resolves one of them, or nil.
func SidecarUnregisteredHost(v *snapshot.View, name string) *ir.VirtualHost {
	return ended(v, unregisteredHost(newScope(v), name))
}

// SidecarClusters lists the clusters for what a sidecar's workload calls.
func SidecarClusters(v *snapshot.View) []string {
	s := newScope(v)
	return slices.Concat(fixedClusters(), outboundClusters(s), inners(s))
}

// SidecarOwnClusters lists the clusters for what the workload serves.
func SidecarOwnClusters(v *snapshot.View) []string { return inboundClusters(v) }

// SidecarCluster resolves a sidecar's cluster, or nil.
func SidecarCluster(v *snapshot.View, name string) *ir.Cluster {
	if name == inboundPassthrough {
		return inbound(v, 0)
	}
	if port, ok := parseInbound(name); ok {
		return inbound(v, port)
	}
	s := newScope(v)
	if strings.HasPrefix(name, tunnelPrefix) {
		return onDemand(s, tunnelCluster(s, name))
	}
	return onDemand(s, outwardCluster(s, name))
}

// outwardCluster resolves what all proxies but the egress gateway have.
func outwardCluster(s *scope, name string) *ir.Cluster {
	if k, ok := parseOutbound(name); ok {
		return outbound(s, k)
	}
	if strings.HasPrefix(name, dynamicPrefix) {
		return dynamicCluster(s, name)
	}
	return fixedCluster(s, name)
}

// Assignments lists the endpoint sets of a sidecar or gateway.
func Assignments(v *snapshot.View) []string { return assignments(newScope(v)) }

// Assignment resolves one of them, or nil.
func Assignment(v *snapshot.View, name string) *ir.Assignment {
	k, ok := parseOutbound(name)
	if !ok {
		return nil
	}
	return assignment(newScope(v), k)
}
