// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package resolve decides what a proxy is to do: it reads a recording view of
// the snapshot and returns IR. All functions are pure. For each type there are
// two: one lists the names that a proxy should have, the other resolves one
// name, reading no more than that name needs, so that a change rebuilds only
// what depends on it.
//
//	sidecar  virtualOutbound ─ port and VIP listeners ─ routes ─┐
//	         virtualInbound  ─ a chain per service port         ├─ clusters ─ assignments
//	router   a listener per server port ─ routes ───────────────┤
//	egress   0.0.0.0_15443: a chain per external service port ──┘
//
// What a destination is reached through (directly, or via the egress gateway)
// is known in one place, via; it shapes clusters and their endpoints only.
package resolve

import (
	"strings"
	"time"
	"unicode"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// Types of proxies.
const (
	typeSidecar = "sidecar"
	typeRouter  = "router"
)

// detection bounds how long the first bytes of a connection are waited for. A
// server that speaks first would otherwise wait for ever.
const detection = 5 * time.Second

// Role is what a proxy does in the mesh.
type Role uint8

// Roles.
const (
	Sidecar Role = iota
	// Gateway is a router that serves Gateway objects.
	Gateway
	// Egress is the topology's egress gateway.
	Egress
)

// RoleOf tells the role of the view's proxy.
func RoleOf(v *snapshot.View) Role {
	if v.ProxyType() != typeRouter {
		return Sidecar
	}
	if g := v.Config().EgressGateway; g != nil && v.InNamespace(g.Namespace) && v.ProxyMatches(g.Labels) && len(g.Labels) > 0 {
		return Egress
	}
	return Gateway
}

func detectionTimeout(v *snapshot.View) time.Duration {
	if d := v.Mesh().GetProtocolDetectionTimeout().AsDuration(); d > 0 {
		return d
	}
	return detection
}

// wildcardAddresses are the addresses of a listener for any destination.
func wildcardAddresses(v *snapshot.View, port uint32) []ir.Address {
	var out []ir.Address
	if v.IPv4() {
		out = append(out, ir.Address{IP: anyIPv4, Port: port})
	}
	if v.IPv6() {
		out = append(out, ir.Address{IP: anyIPv6, Port: port})
	}
	return out
}

func wildcardIP(v *snapshot.View) string {
	if v.IPv4() {
		return anyIPv4
	}
	return anyIPv6
}

func family(v *snapshot.View) ir.IPFamily {
	switch {
	case !v.IPv6():
		return ir.V4Only
	case !v.IPv4():
		return ir.V6Only
	}
	return ir.AllFamilies
}

func one(cluster string) []ir.WeightedCluster { return []ir.WeightedCluster{{Cluster: cluster}} }

func tcpTo(v *snapshot.View, cluster string) *ir.TCP {
	return &ir.TCP{StatPrefix: cluster, Clusters: one(cluster), AccessLog: accessLog(v)}
}

// tcpPorts leaves out what no listener can serve.
func tcpPorts(s *model.Service) []model.Port {
	out := make([]model.Port, 0, len(s.Ports))
	for _, p := range s.Ports {
		if p.Protocol != model.UDP && p.Protocol != model.Unused {
			out = append(out, p)
		}
	}
	return out
}

// kindPath names an object as Istio's tools look for it, its kind in kebab case.
func kindPath(m model.Meta, group string) string {
	var kind strings.Builder
	for i, r := range m.Kind {
		if unicode.IsUpper(r) && i > 0 {
			kind.WriteByte('-')
		}
		kind.WriteRune(unicode.ToLower(r))
	}
	return "/apis/" + group + "/namespaces/" + m.Namespace + "/" + kind.String() + "/" + m.Name
}
