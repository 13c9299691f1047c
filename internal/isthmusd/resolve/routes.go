// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"cmp"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

// meshGateway is what VirtualServices call all sidecars.
const meshGateway = "mesh"

// outboundRoutes lists a sidecar's route tables: one per port, and one per
// virtual address where the protocol is found out on the wire.
func outboundRoutes(s *scope) []string {
	var names []string
	for _, svc := range s.services() {
		for _, p := range tcpPorts(svc) {
			if reserved(p.Number) || (!p.Protocol.IsHTTP() && p.Protocol != model.Auto) {
				continue
			}
			if _, own := ownAddress(s.v, svc, p); own {
				names = append(names, svc.Host+":"+portString(p.Number))
				continue
			}
			names = append(names, portString(p.Number))
		}
	}
	return names
}

// outboundRouteTable resolves one of the tables that outboundRoutes lists.
func outboundRouteTable(s *scope, name string) *ir.RouteConfig {
	if port, ok := parsePort(name); ok {
		return portRoutes(s, port)
	}
	i := strings.LastIndexByte(name, ':')
	if i < 0 {
		return nil
	}
	port, ok := parsePort(name[i+1:])
	svc := s.service(name[:i])
	if !ok || svc == nil {
		return nil
	}
	if _, ok := svc.PortNumber(port); !ok {
		return nil
	}
	r := meshRouting(s, port)
	r.detected = true
	return &ir.RouteConfig{Name: name, VirtualHosts: []ir.VirtualHost{{
		Name: name, Domains: []string{"*"}, Routes: serviceRoutes(r, svc),
	}}}
}

// portRoutes is the table of everything that is reached by host on a port.
func portRoutes(s *scope, port uint32) *ir.RouteConfig {
	var table hostTable
	r := meshRouting(s, port)
	domain := s.v.Config().ClusterDomain
	services := slices.Clone(s.onPort(port))
	slices.SortStableFunc(services, func(a, b *model.Service) int { return cmp.Compare(a.Host, b.Host) })
	for _, svc := range services {
		p, _ := svc.PortNumber(port)
		if !p.Protocol.IsHTTP() && p.Protocol != model.Auto {
			continue
		}
		table.add(hostEntry{
			host:    svc.Host,
			service: svc.Object.Kind == model.KindService,
			names:   []string{svc.Host},
			others:  append(shortNames(svc, s.v.ProxyNamespace(), domain), addressDomains(s, svc)...),
			routes:  serviceRoutes(r, svc),
		})
	}
	if port == 80 {
		addVirtualHostsWithoutService(r, &table)
	}
	out := &ir.RouteConfig{Name: portString(port), VirtualHosts: table.virtualHosts(port)}
	if !slices.ContainsFunc(out.VirtualHosts, func(h ir.VirtualHost) bool { return slices.Contains(h.Domains, "*") }) {
		out.VirtualHosts = append(out.VirtualHosts, everythingElse(s))
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

// addVirtualHostsWithoutService makes hosts of VirtualServices known that are
// in no registry: Istio serves them on port 80.
func addVirtualHostsWithoutService(r *routing, table *hostTable) {
	domain := r.s.v.Config().ClusterDomain
	for _, vs := range r.s.v.VirtualServices() {
		if !r.binds(vs) || !r.s.seesVirtualService(vs) {
			continue
		}
		for _, h := range vs.Spec.GetHosts() {
			host := fullName(h, vs.Namespace, domain)
			if len(r.s.v.ServicesByHost(host)) > 0 || r.virtualService(host) != vs {
				continue
			}
			table.add(hostEntry{host: host, names: []string{host}, routes: r.http(vs)})
		}
	}
}

// serviceRoutes are a service's routes: its VirtualService's, or all to itself.
func serviceRoutes(r *routing, svc *model.Service) []ir.Route {
	if vs := r.virtualService(svc.Host); vs != nil {
		if routes := r.http(vs); len(routes) > 0 {
			return routes
		}
	}
	return []ir.Route{r.plain(svc)}
}

// seesVirtualService applies exportTo and the Sidecar's imports.
func (s *scope) seesVirtualService(vs *model.VirtualService) bool {
	if !exported(vs.Spec.GetExportTo(), s.v.Mesh().GetDefaultVirtualServiceExportTo(), vs.Namespace, s.in) {
		return false
	}
	domain := s.v.Config().ClusterDomain
	return slices.ContainsFunc(vs.Spec.GetHosts(), func(h string) bool {
		host := fullName(h, vs.Namespace, domain)
		return s.imported(vs.Namespace, host) || slices.ContainsFunc(s.imports, func(r importRule) bool {
			return covers(host, r.host) && s.means(r, vs.Namespace)
		})
	})
}
