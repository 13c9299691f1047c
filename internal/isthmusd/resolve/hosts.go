// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

// A table of routes is made of pieces: what stands in the table itself are
// wildcard hosts and what happens to all others; each other host is a piece of
// its own, so that a change of one touches no more than that.
//
// Envoy refuses a table for one domain that stands twice, so every piece has to
// know what the others claim. Names are given in this order: Kubernetes Services
// with all their short names and addresses, then other hosts by name, then their
// addresses; so no entry takes what the cluster's DNS gives to a Service. Of two
// with the same rank the first by host has it.
//
// Where virtual hosts come on their own Envoy refuses a whole response for one
// domain that stands in the table as well. No order of two responses would let it
// move from one to the other; so it never does: tables have the domains with a
// star, pieces the others, also of the same host.

// apartPrefix begins the names of tables whose virtual hosts come on their own.
// Under one name Envoy would remember the hosts of a table that was whole since.
const apartPrefix = "vhds."

// unregisteredPort is where Istio serves hosts that only VirtualServices know.
const unregisteredPort = 80

func isWildcard(host string) bool { return strings.HasPrefix(host, "*") }

func isExact(domain string) bool { return !isWildcard(domain) }

// tableName is the name of a port's table.
func (s *scope) tableName(port uint32) string {
	if s.v.HostsApart() {
		return apartPrefix + portString(port)
	}
	return portString(port)
}

// parseTable reads what tableName wrote for the same proxy.
func (s *scope) parseTable(name string) (port uint32, ok bool) {
	port, ok = parsePort(strings.TrimPrefix(name, apartPrefix))
	return port, ok && name == s.tableName(port)
}

func (s *scope) pieceName(port uint32, host string) string { return s.tableName(port) + "/" + host }

func (s *scope) parsePiece(name string) (port uint32, host string, ok bool) {
	table, host, found := strings.Cut(name, "/")
	port, ok = s.parseTable(table)
	return port, host, ok && found
}

func virtualHost(port uint32, host string, domains []string, routes []ir.Route) *ir.VirtualHost {
	return &ir.VirtualHost{Name: host + ":" + portString(port), Domains: domains, Routes: routes}
}

// piece is a virtual host of its own. One that comes on its own has to be called
// as its resource is, or Envoy would not find it when it is removed.
func (s *scope) piece(port uint32, host string, domains []string, routes []ir.Route) *ir.VirtualHost {
	out := virtualHost(port, host, domains, routes)
	if s.v.HostsApart() {
		out.Name = s.pieceName(port, host)
	}
	return out
}

// byHost tells whether HTTP on the port finds the service by host.
func (s *scope) byHost(svc *model.Service, port uint32) bool {
	p, ok := svc.PortNumber(port)
	return ok && (p.Protocol.IsHTTP() || p.Protocol == model.Auto) && s.importedOn(svc.Namespace, svc.Host, port)
}

// serviceHosts lists the pieces of services, for the ports that have a table.
func serviceHosts(s *scope) []string {
	tables := map[string]bool{}
	for _, name := range outboundTables(s) {
		tables[name] = true
	}
	var names []string
	for _, svc := range s.services() {
		for _, p := range tcpPorts(svc) {
			if (!isWildcard(svc.Host) || s.v.HostsApart()) && tables[s.tableName(p.Number)] && s.byHost(svc, p.Number) {
				names = append(names, s.pieceName(p.Number, svc.Host))
			}
		}
	}
	return names
}

// serviceHost resolves one of them; nil also where others have all its names.
func serviceHost(s *scope, name string) *ir.VirtualHost {
	port, host, ok := s.parsePiece(name)
	if !ok {
		return nil
	}
	svc := s.service(host)
	if svc == nil || !s.byHost(svc, port) {
		return nil
	}
	domains := s.domains(svc, port)
	if s.v.HostsApart() {
		domains = slices.DeleteFunc(domains, isWildcard)
	}
	if len(domains) == 0 {
		return nil
	}
	return s.piece(port, host, domains, serviceRoutes(meshRouting(s, port), svc))
}

// unregisteredHosts lists the pieces of hosts that are in no registry. Where the
// port has no table they go nowhere.
func unregisteredHosts(s *scope) []string {
	var names []string
	for _, host := range hostsWithoutService(meshRouting(s, unregisteredPort)) {
		if !isWildcard(host) {
			names = append(names, s.pieceName(unregisteredPort, host))
		}
	}
	return names
}

// unregisteredHost resolves one of them; nil where its name is taken.
func unregisteredHost(s *scope, name string) *ir.VirtualHost {
	port, host, ok := s.parsePiece(name)
	if !ok {
		return nil
	}
	r := meshRouting(s, port)
	vs, domains := r.unregistered(host), s.named(host, port)
	if vs == nil || len(domains) == 0 {
		return nil
	}
	return s.piece(port, host, domains, r.http(vs))
}

// unregistered is the VirtualService that makes a host known which no registry
// knows, or nil.
func (r *routing) unregistered(host string) *model.VirtualService {
	if r.port != unregisteredPort || len(r.s.v.ServicesByHost(host)) > 0 {
		return nil
	}
	vs := r.virtualService(host)
	if vs == nil || !slices.Contains(vs.Spec.GetHosts(), host) {
		return nil
	}
	return vs
}

// hostsWithoutService lists the hosts of VirtualServices that are in no registry.
func hostsWithoutService(r *routing) []string {
	var out []string
	for _, vs := range r.s.v.VirtualServices() {
		for _, host := range vs.Spec.GetHosts() {
			if r.unregistered(host) != nil {
				out = append(out, host)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// portTable is what stands in the table of a port itself.
func portTable(s *scope, port uint32) *ir.RouteConfig {
	out := &ir.RouteConfig{Name: s.tableName(port), HostsApart: s.v.HostsApart()}
	r := meshRouting(s, port)
	out.VirtualHosts = wildcardHosts(s, r)
	if port == unregisteredPort {
		for _, host := range hostsWithoutService(r) {
			if domains := s.named(host, port); isWildcard(host) && len(domains) > 0 {
				out.VirtualHosts = append(out.VirtualHosts, *virtualHost(port, host, domains, r.http(r.virtualService(host))))
			}
		}
	}
	slices.SortFunc(out.VirtualHosts, func(a, b ir.VirtualHost) int { return cmp.Compare(a.Name, b.Name) })
	if !slices.ContainsFunc(out.VirtualHosts, func(h ir.VirtualHost) bool { return slices.Contains(h.Domains, "*") }) {
		out.VirtualHosts = append(out.VirtualHosts, everythingElse(s))
	}
	return out
}

// wildcardHosts are the virtual hosts of services that stand in the table of a
// port: those whose own host has a star and, where pieces may not have any, the
// domains with a star of the others.
func wildcardHosts(s *scope, r *routing) []ir.VirtualHost {
	apart := s.v.HostsApart()
	wild := slices.DeleteFunc(slices.Clone(s.v.ServicesByPort(r.port)), func(c *model.Service) bool {
		return !isWildcard(c.Host) && (!apart || !c.Headless)
	})
	var out []ir.VirtualHost
	for _, svc := range s.only(wild) {
		domains, host := s.domains(svc, r.port), svc.Host
		if apart {
			domains = slices.DeleteFunc(domains, isExact)
		}
		if !isWildcard(host) {
			host = "*." + host
		}
		if s.byHost(svc, r.port) && len(domains) > 0 {
			out = append(out, *virtualHost(r.port, host, domains, serviceRoutes(r, svc)))
		}
	}
	return out
}

// everythingElse is what happens to hosts that nobody registered.
func everythingElse(s *scope) ir.VirtualHost {
	if s.registryOnly() {
		return ir.VirtualHost{Name: "block_all", Domains: []string{"*"}, Routes: []ir.Route{{
			Name: "block_all", Direct: &ir.Direct{Status: 502},
		}}}
	}
	return ir.VirtualHost{Name: "allow_any", Domains: []string{"*"}, Routes: []ir.Route{{
		Name: "allow_any", Forward: &ir.Forward{Clusters: one(passthroughCluster)},
	}}}
}

// domains are those that the service has on a port, none twice.
func (s *scope) domains(svc *model.Service, port uint32) []string {
	var out []string
	if svc.Object.Kind == model.KindService {
		out = append([]string{svc.Host}, s.shortNames(svc)...)
	} else {
		out = s.named(svc.Host, port)
	}
	for _, ip := range virtualIPs(s.v, svc) {
		if s.addressed(ip, port) == svc {
			out = append(out, addressDomain(ip))
		}
	}
	return claims{}.take(out)
}

// named is a host's own name, unless a Kubernetes Service goes by it.
func (s *scope) named(host string, port uint32) []string {
	for _, fqdn := range s.meanings(host) {
		svc := s.service(fqdn)
		if svc == nil || svc.Object.Kind != model.KindService || !s.byHost(svc, port) {
			continue
		}
		if slices.Contains(s.shortNames(svc), host) {
			return nil
		}
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if svc := s.addressed(ip, port); svc != nil && svc.Object.Kind == model.KindService {
			return nil
		}
	}
	return claims{}.take([]string{host})
}

// meanings lists the Kubernetes Services, by their full names, for which a host
// could be short: a, a.b and a.b.svc, and with a star what is below them.
func (s *scope) meanings(host string) []string {
	domain := "." + s.v.Config().ClusterDomain
	base := strings.TrimPrefix(host, "*.")
	switch labels := strings.Split(base, "."); {
	case host == "*":
	case len(labels) == 1:
		return []string{base + "." + s.v.ProxyNamespace() + ".svc" + domain}
	case len(labels) == 2:
		return []string{base + ".svc" + domain}
	case len(labels) == 3 && labels[2] == "svc":
		return []string{base + domain}
	case base != host && strings.HasSuffix(base, ".svc"+domain):
		return []string{base}
	}
	return nil
}

// addressed finds whom HTTP for an address means on a port, or nil.
func (s *scope) addressed(ip netip.Addr, port uint32) *model.Service {
	var best *model.Service
	for _, svc := range s.only(s.v.ServicesByAddress(ip.String())) {
		if !s.byHost(svc, port) || (svc.Object.Kind != model.KindService && s.claimsByName(ip, port)) {
			continue
		}
		if best == nil || cmp.Or(kindRank(svc)-kindRank(best), cmp.Compare(svc.Host, best.Host)) < 0 {
			best = svc
		}
	}
	return best
}

// claimsByName tells whether somebody has an address for its name.
func (s *scope) claimsByName(ip netip.Addr, port uint32) bool {
	if svc := s.service(ip.String()); svc != nil {
		return s.byHost(svc, port)
	}
	return meshRouting(s, port).unregistered(ip.String()) != nil
}

// addressDomain is an address as it stands in a Host header.
func addressDomain(ip netip.Addr) string {
	if ip.Is4() {
		return ip.String()
	}
	return "[" + ip.String() + "]"
}
