// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

// meshGateway is what VirtualServices call all sidecars.
const meshGateway = "mesh"

// outboundTables lists a sidecar's route tables: one per port, and one per
// virtual address where the protocol is found out on the wire.
func outboundTables(s *scope) []string {
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
			names = append(names, s.tableName(p.Number))
		}
	}
	return names
}

// outboundTable resolves one of the tables that outboundTables lists.
func outboundTable(s *scope, name string) *ir.RouteConfig {
	if port, ok := s.parseTable(name); ok {
		return portTable(s, port)
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
