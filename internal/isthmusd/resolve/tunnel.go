// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"net/netip"
	"strings"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

// Bytes for one of many addresses carry no name. Their way through the egress
// gateway is a HTTP CONNECT that names the address, inside the mutual TLS:
//
//	sidecar  chain ─ cluster ─ listener tunnel|… ─ cluster tunnel|… ═╗ CONNECT 192.0.2.7:5432
//	egress   chain (403 for strangers) ─ listener inner|… ─ cluster ◄╝ ─ 192.0.2.7:5432
//
// The two in the middle are there in every topology, so that moving between
// topologies changes clusters only.
const tunnelPrefix = "tunnel|"

// tunnelled tells whether a port of an entry is reached at whichever of several
// addresses a client has dialled.
func tunnelled(svc *model.Service, p model.Port) bool {
	return registeredOutside(svc) && p.Protocol == model.TCP && svc.Resolution == model.Passthrough &&
		len(svc.Addresses) > 0 && (len(svc.Addresses) > 1 || !svc.Addresses[0].IsSingleIP())
}

// inners lists a sidecar's internal listeners, which have the names of the clusters
// that they lead to: for bytes that would go by a tunnel, and for TLS whose host is
// looked up.
func inners(s *scope) []string {
	var out []string
	for _, svc := range s.services() {
		for _, p := range svc.Ports {
			prefix := tunnelPrefix
			switch {
			case tunnelled(svc, p):
			case bySNI(svc, p):
				prefix = dynamicPrefix
			default:
				continue
			}
			for _, sub := range append([]string{""}, s.subsets(svc)...) {
				out = append(out, prefix+outboundCluster(p.Number, sub, svc.Host))
			}
		}
	}
	return out
}

// tunnelOf finds the destination that a tunnel's name stands for.
func (s *scope) tunnelOf(name string) (destination, bool) {
	return s.behind(tunnelPrefix, name, tunnelled)
}

// behind finds the destination of an inner listener or cluster: its name is the
// prefix of its sort and the name of the cluster that leads there.
func (s *scope) behind(prefix, name string, sort func(*model.Service, model.Port) bool) (destination, bool) {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return destination{}, false
	}
	k, ok := parseOutbound(rest)
	if !ok {
		return destination{}, false
	}
	d, ok := s.destination(k)
	return d, ok && sort(d.svc, d.port)
}

// tunnelListener asks the gateway for the address that was dialled.
func tunnelListener(s *scope, name string) *ir.Listener {
	if _, ok := s.tunnelOf(name); !ok {
		return nil
	}
	return &ir.Listener{
		Name: name, Direction: ir.Outbound, Binding: ir.Internal,
		Chains: []ir.Chain{{Name: name, TCP: &ir.TCP{StatPrefix: name, Clusters: one(name), Tunnelled: true}}},
	}
}

// tunnelCluster is the gateway, where there is one.
func tunnelCluster(s *scope, name string) *ir.Cluster {
	d, ok := s.tunnelOf(name)
	if !ok {
		return nil
	}
	c := &ir.Cluster{Name: name, Discovery: ir.Static, Services: []ir.ServiceRef{serviceRef(d.svc)}}
	if via(s, d.svc) {
		throughGateway(s, c, d)
		c.Protocol = ir.HTTP2
		c.TLS.ALPN = []string{"h2"}
	}
	return c
}

// intoTunnel leads a cluster to the tunnel's own listener. A gateway's clients have
// dialled the gateway, so there is nothing to ask for.
func intoTunnel(s *scope, c *ir.Cluster) {
	c.Discovery = ir.Static
	if s.router {
		return
	}
	c.Tunnelled = true
	c.Localities = []ir.Locality{{Endpoints: []ir.Endpoint{{Address: tunnelPrefix + c.Name, Internal: true}}}}
}

// tunnelled is the same of a key of the egress gateway.
func (t egressTarget) tunnelled() bool { return tunnelled(t.svc, t.port) }

// connectHTTP ends tunnels for the target's callers.
func connectHTTP(t egressTarget) *ir.HTTP {
	return &ir.HTTP{
		StatPrefix: t.key,
		Edge:       ir.FromSidecar,
		Tunnels:    true,
		Callers:    &ir.Callers{StatPrefix: "egress", Principals: t.callers()},
		AccessLog:  egressLog(t.s.v),
		Routes: &ir.RouteConfig{Name: t.key, VirtualHosts: []ir.VirtualHost{{
			Name: t.svc.Host + ":" + portString(t.port.Number), Domains: []string{"*"}, NoAttemptCount: true,
			Routes: []ir.Route{{Name: "tunnel", Match: ir.RouteMatch{Connect: true}, Forward: &ir.Forward{Clusters: one(t.innerName())}}},
		}}},
	}
}

// dialledListener lets only the entry's own addresses through, whatever the tunnel
// was asked for.
func dialledListener(t egressTarget) *ir.Listener {
	v := t.s.v
	refused := ir.Chain{Name: "address_mismatch", TCP: &ir.TCP{
		StatPrefix: "address_mismatch", Clusters: one(blackHoleCluster), AccessLog: accessLog(v),
	}}
	l := &ir.Listener{
		Name: t.innerName(), Direction: ir.Outbound, Binding: ir.Internal, Restore: true, Default: &refused,
	}
	own := ir.Chain{
		Name:  t.key,
		Match: ir.Match{Port: t.port.Number},
		TCP:   &ir.TCP{StatPrefix: t.key, Clusters: one(t.key)},
	}
	never := ir.Chain{Name: "never", TCP: refused.TCP, Match: ir.Match{Port: t.port.Number}}
	for _, r := range t.svc.Addresses {
		if !within(r, ir.NeverOutside()) {
			own.Match.Ranges = append(own.Match.Ranges, r)
		}
	}
	for _, r := range ir.NeverOutside() {
		if within(r, own.Match.Ranges) {
			never.Match.Ranges = append(never.Match.Ranges, r)
		}
	}
	if len(own.Match.Ranges) > 0 {
		l.Chains = append(l.Chains, own)
	}
	if len(never.Match.Ranges) > 0 {
		l.Chains = append(l.Chains, never)
	}
	if len(l.Chains) == 0 {
		l.Chains, l.Default = []ir.Chain{refused}, nil
	}
	return l
}

// within tells whether one of the ranges covers another whole.
func within(r netip.Prefix, ranges []netip.Prefix) bool {
	for _, o := range ranges {
		if o.Bits() <= r.Bits() && o.Contains(r.Addr()) {
			return true
		}
	}
	return false
}
