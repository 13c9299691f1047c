// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"cmp"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// scope is what one proxy may see: services by exportTo and by the Sidecar that
// applies to it, one per host.
type scope struct {
	v      *snapshot.View
	root   string
	router bool
	// behalf is the namespace for whose sidecars the egress gateway stands in, else "".
	behalf  string
	sidecar *model.Sidecar
	imports []importRule // nil imports everything
	bounds  *bounds
}

// importRule is one "namespace/host" of a Sidecar's egress.
type importRule struct {
	namespace, host string // "." is whatever namespace the proxy is in
	port            uint32 // 0: every port
}

func newScope(v *snapshot.View) *scope {
	s := &scope{v: v, root: v.Config().Namespace, router: v.ProxyType() == typeRouter, bounds: boundsOf(v)}
	if s.router {
		return s
	}
	s.sidecar = chooseSidecar(v, s.root)
	if s.sidecar != nil {
		s.imports = importRules(s.sidecar, s.root)
	}
	return s
}

// in tells whether the proxy, or whoever it stands in for, is in a namespace. To
// ask no more than that, and only where the answer matters, is what lets
// proxies of different namespaces share their resources.
func (s *scope) in(ns string) bool {
	if s.behalf != "" {
		return s.behalf == ns
	}
	return s.v.InNamespace(ns)
}

// is makes the question whether something is visible in a given namespace.
func is(ns string) func(string) bool { return func(other string) bool { return other == ns } }

// chooseSidecar finds the Sidecar for the proxy: one that selects it, the
// namespace's, or the root namespace's.
func chooseSidecar(v *snapshot.View, root string) *model.Sidecar {
	var general *model.Sidecar
	for _, s := range v.ProxySidecars() {
		selector := s.Spec.GetWorkloadSelector().GetLabels()
		switch {
		case len(selector) == 0 && general == nil:
			general = s
		case len(selector) > 0 && v.ProxyMatches(selector):
			return s
		}
	}
	if general != nil {
		return general
	}
	for _, s := range v.Sidecars(root) {
		if len(s.Spec.GetWorkloadSelector().GetLabels()) == 0 {
			return s
		}
	}
	return nil
}

func importRules(sidecar *model.Sidecar, root string) []importRule {
	var out []importRule
	egress := sidecar.Spec.GetEgress()
	for _, e := range egress {
		for _, h := range e.GetHosts() {
			from, host, ok := strings.Cut(h, "/")
			if !ok || from == "~" {
				continue
			}
			if from == "." && sidecar.Namespace != root {
				from = sidecar.Namespace // its proxies are nowhere else
			}
			out = append(out, importRule{from, strings.ToLower(host), e.GetPort().GetNumber()})
		}
	}
	if len(egress) > 0 && out == nil {
		out = []importRule{}
	}
	return out
}

// imported tells whether the Sidecar lets something with this host and
// namespace in, on some port.
func (s *scope) imported(namespace, host string) bool {
	return s.imports == nil || slices.ContainsFunc(s.imports, func(r importRule) bool {
		return s.lets(r, namespace, host)
	})
}

// importedOn is imported for one port.
func (s *scope) importedOn(namespace, host string, port uint32) bool {
	return s.imports == nil || slices.ContainsFunc(s.imports, func(r importRule) bool {
		return (r.port == 0 || r.port == port) && s.lets(r, namespace, host)
	})
}

func (s *scope) lets(r importRule, namespace, host string) bool {
	return covers(r.host, host) && s.means(r, namespace)
}

// means tells whether a rule is about objects of a namespace.
func (s *scope) means(r importRule, namespace string) bool {
	return r.namespace == "*" || r.namespace == namespace || (r.namespace == "." && s.in(namespace))
}

// exported tells whether an object of one namespace is visible where in says so.
func exported(to []string, defaults []string, from string, in func(string) bool) bool {
	if len(to) == 0 {
		to = defaults
	}
	if len(to) == 0 {
		return true
	}
	if slices.Contains(to, "*") {
		return true
	}
	return slices.ContainsFunc(to, func(e string) bool {
		if e == "." {
			e = from
		}
		return in(e)
	})
}

func (s *scope) sees(svc *model.Service) bool {
	return s.mayLeaveBy(svc) && exported(svc.ExportTo, s.v.Mesh().GetDefaultServiceExportTo(), svc.Namespace, s.in) &&
		s.imported(svc.Namespace, svc.Host)
}

// mayLeaveBy tells whether an entry for a host outside counts here. Where all
// leave through the egress gateway a tenant's entry opens the way for its own
// namespace alone, whatever it is exported to, and for the platform's gateways.
func (s *scope) mayLeaveBy(svc *model.Service) bool {
	c := s.v.Config()
	if c.Topology != topology.EgressGateway || c.EgressGateway == nil || !registeredOutside(svc) {
		return true
	}
	return svc.Namespace == s.root || s.in(svc.Namespace) || s.in(s.root)
}

// service finds what a host means to this proxy, or nil.
func (s *scope) service(host string) *model.Service {
	return s.choose(s.v.ServicesByHost(host))
}

// choose picks among the declarations of one host: the proxy's own namespace
// before the root namespace before others, a Kubernetes Service before an entry,
// then the oldest.
func (s *scope) choose(candidates []*model.Service) *model.Service {
	var seen []*model.Service
	for _, c := range candidates {
		if s.sees(c) {
			seen = append(seen, c)
		}
	}
	if len(seen) < 2 {
		return first(seen) // whatever its rank
	}
	return slices.MinFunc(seen, func(a, b *model.Service) int {
		return cmp.Or(cmp.Compare(s.rank(a.Namespace), s.rank(b.Namespace)), cmp.Compare(kindRank(a), kindRank(b)))
	})
}

func first(list []*model.Service) *model.Service {
	if len(list) == 0 {
		return nil
	}
	return list[0]
}

func kindRank(c *model.Service) int {
	if c.Object.Kind == model.KindService {
		return 0
	}
	return 1
}

func (s *scope) rank(namespace string) int {
	switch {
	case s.in(namespace):
		return 0
	case namespace == s.root:
		return 1
	}
	return 2
}

// only leaves one service per host: the one that service() would find. The
// candidates are all services with a common property; another declaration of
// the same host without it may win over all of them.
func (s *scope) only(candidates []*model.Service) []*model.Service {
	out := make([]*model.Service, 0, len(candidates))
	for _, c := range candidates {
		if s.sees(c) && s.service(c.Host) == c {
			out = append(out, c)
		}
	}
	return out
}

// services lists what the proxy sees, by host.
func (s *scope) services() []*model.Service {
	out := s.only(s.v.Services())
	slices.SortFunc(out, func(a, b *model.Service) int { return cmp.Compare(a.Host, b.Host) })
	return out
}

// onPort lists the services that the proxy sees on a port, oldest first.
func (s *scope) onPort(port uint32) []*model.Service {
	return slices.DeleteFunc(s.only(s.v.ServicesByPort(port)), func(c *model.Service) bool {
		return !s.importedOn(c.Namespace, c.Host, port)
	})
}

// registryOnly tells whether hosts that nobody registered are refused. The
// platform's refusal is a floor: only the root namespace's Sidecars may lift it.
func (s *scope) registryOnly() bool {
	if s.bounds != nil {
		return true // where they lead nobody knows, but NetworkPolicies are in the way
	}
	mesh := s.v.Config().Outbound == topology.RegistryOnly
	if s.sidecar == nil || s.sidecar.Spec.GetOutboundTrafficPolicy() == nil {
		return mesh
	}
	own := s.sidecar.Spec.GetOutboundTrafficPolicy().GetMode() == networking.OutboundTrafficPolicy_REGISTRY_ONLY
	if s.sidecar.Namespace == s.root {
		return own
	}
	return mesh || own
}

// fallthroughCluster takes TCP that no service claims.
func (s *scope) fallthroughCluster() string {
	if s.registryOnly() {
		return blackHoleCluster
	}
	return passthroughCluster
}
