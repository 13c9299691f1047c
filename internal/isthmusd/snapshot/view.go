// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// View answers questions about one Snapshot for one proxy, and records each.
// Everything that it returns is shared and must not be modified. It's for one
// goroutine. Istio objects of namespaces that are neither members nor the root
// are not there for it.
type View struct {
	s   *Snapshot
	p   *model.Proxy
	rec *Record
}

// View returns a recording view for a proxy; rec may be nil to record nothing.
func (s *Snapshot) View(p *model.Proxy, rec *Record) *View { return &View{s, p, rec} }

// Config is the topology configuration.
func (v *View) Config() topology.Config {
	v.rec.read(Config, ByKey, "")
	return v.s.config
}

// Mesh is Istio's MeshConfig with defaults applied.
func (v *View) Mesh() *meshconfig.MeshConfig {
	v.rec.read(Mesh, ByKey, "")
	return v.s.mesh
}

// Service finds a service, or nil.
func (v *View) Service(k model.ServiceKey) *model.Service {
	key := serviceKey(k)
	v.rec.read(Services, ByKey, key)
	s, ok := v.s.services.get(key)
	if !ok || len(governedServices(v, []*model.Service{s})) == 0 {
		return nil
	}
	return s
}

// Services lists all services by age, namespace, host.
func (v *View) Services() []*model.Service {
	v.rec.read(Services, All, "")
	return governedServices(v, v.s.allServices())
}

// ServicesByHost lists the services that declare exactly this host, in whatever
// namespace, by age.
func (v *View) ServicesByHost(host string) []*model.Service {
	v.rec.read(Services, ByHost, host)
	return governedServices(v, v.s.services.list(ByHost, host))
}

// ServicesByNamespace lists the services of a namespace by age.
func (v *View) ServicesByNamespace(ns string) []*model.Service {
	v.rec.read(Services, ByNamespace, ns)
	return governedServices(v, v.s.services.list(ByNamespace, ns))
}

// ServicesByPort lists the services that have a port with this number, by age.
func (v *View) ServicesByPort(port uint32) []*model.Service {
	key := strconv.Itoa(int(port))
	v.rec.read(Services, ByPort, key)
	return governedServices(v, v.s.services.list(ByPort, key))
}

// ServicesByAddress lists the services with this virtual address, by age;
// ranges of addresses do not count.
func (v *View) ServicesByAddress(ip string) []*model.Service {
	v.rec.read(Services, ByAddress, ip)
	return governedServices(v, v.s.services.list(ByAddress, ip))
}

// ServicesSelecting lists the services of a namespace whose selector matches
// these labels, by age. Services without a selector select nothing.
func (v *View) ServicesSelecting(ns string, labels map[string]string) []*model.Service {
	v.rec.read(Services, Selecting, ns)
	var out []*model.Service
	for _, s := range v.s.services.list(Selecting, ns) {
		if Matches(s.Selector, labels) {
			out = append(out, s)
		}
	}
	return out
}

// ServicesSelectingProxy lists the services of the proxy's namespace that select
// it, by age. It asks for the labels that selectors there name, not for those
// that a pod has: proxies that no selector could tell apart share.
func (v *View) ServicesSelectingProxy() []*model.Service {
	ns := v.ProxyNamespace()
	v.rec.read(Services, Selecting, ns)
	all := v.s.services.list(Selecting, ns)
	keys := map[string]struct{}{}
	for _, s := range all {
		for k := range s.Selector {
			keys[k] = struct{}{}
		}
	}
	labels := v.proxyLabels(slices.Sorted(maps.Keys(keys)))
	var out []*model.Service
	for _, s := range all {
		if Matches(s.Selector, labels) {
			out = append(out, s)
		}
	}
	return out
}

// Summary is what clusters and listeners may know of a service's endpoints.
func (v *View) Summary(k model.ServiceKey) model.Summary {
	key := serviceKey(k)
	v.rec.read(Summaries, ByKey, key)
	if row, ok := v.s.summaries.get(key); ok {
		return row.Summary
	}
	return model.Summary{}
}

// Endpoints of a service, sorted by address. For builders of
// ClusterLoadAssignments only: whatever asks is rebuilt with every pod that
// comes or goes.
func (v *View) Endpoints(k model.ServiceKey) []model.Endpoint {
	key := serviceKey(k)
	v.rec.read(Endpoints, ByKey, key)
	if set, ok := v.s.endpoints.get(key); ok {
		return set.endpoints
	}
	return nil
}

// Workloads of a namespace ("" for all) that a selector matches, by name.
func (v *View) Workloads(ns string, selector map[string]string) []*model.Workload {
	index := ByNamespace
	if ns == "" {
		index = All
	}
	v.rec.read(Workloads, index, ns)
	var out []*model.Workload
	for _, w := range v.s.workloads.list(index, ns) {
		if Matches(selector, w.Labels) {
			out = append(out, v.s.placed(w))
		}
	}
	return out
}

// Namespace finds a namespace, or nil.
func (v *View) Namespace(name string) *model.Namespace {
	v.rec.read(Namespaces, ByKey, name)
	n, _ := v.s.namespaces.get(name)
	return n
}

// Secret finds a gateway credential, or nil.
func (v *View) Secret(k model.Key) *model.Secret {
	v.rec.read(Secrets, ByKey, k.String())
	s, _ := v.s.secrets.get(k.String())
	return s
}

// VirtualServices lists all of them, oldest first.
func (v *View) VirtualServices() []*model.VirtualService {
	v.rec.read(VirtualServices, All, "")
	return governed(v, v.s.allVirtualServices(), namespaceOf)
}

// VirtualService finds one by name, for delegates; nil if there is none.
func (v *View) VirtualService(k model.Key) *model.VirtualService {
	v.rec.read(VirtualServices, ByKey, k.String())
	s, ok := v.s.virtualServices.get(k.String())
	if !ok || !v.counts(k.Namespace) {
		return nil
	}
	return s
}

// VirtualServicesByHost lists those that name the host, or a wildcard that
// covers it, oldest first.
func (v *View) VirtualServicesByHost(host string) []*model.VirtualService {
	var out []*model.VirtualService
	matched := 0
	for _, pattern := range covering(host) {
		v.rec.read(VirtualServices, ByHost, pattern)
		if vs := governed(v, v.s.virtualServices.list(ByHost, pattern), namespaceOf); len(vs) > 0 {
			out = append(out, vs...)
			matched++
		}
	}
	if matched > 1 {
		out = oldestFirst(out)
	}
	return out
}

// DestinationRulesByHost lists the rules for the host or for a wildcard that
// covers it: the most specific host first, of equals the oldest.
func (v *View) DestinationRulesByHost(host string) []*model.DestinationRule {
	var out []*model.DestinationRule
	for _, pattern := range covering(host) {
		v.rec.read(DestinationRules, ByHost, pattern)
		out = append(out, governed(v, v.s.destinationRules.list(ByHost, pattern), namespaceOf)...)
	}
	return out
}

// Gateways lists all of them, oldest first.
func (v *View) Gateways() []*model.Gateway {
	v.rec.read(Gateways, All, "")
	return governed(v, v.s.gateways.list(All, ""), namespaceOf)
}

// Sidecars lists those of a namespace, oldest first.
func (v *View) Sidecars(ns string) []*model.Sidecar {
	v.rec.read(Sidecars, ByNamespace, ns)
	return governed(v, v.s.sidecars.list(ByNamespace, ns), namespaceOf)
}

// PeerAuthentications lists those of a namespace, oldest first.
func (v *View) PeerAuthentications(ns string) []*model.PeerAuthentication {
	v.rec.read(PeerAuthentications, ByNamespace, ns)
	return governed(v, v.s.peerAuthentications.list(ByNamespace, ns), namespaceOf)
}

// covering lists the host and the wildcards that cover it, most specific first:
// a.b.c, *.b.c, *.c, *.
func covering(host string) []string {
	out := []string{host}
	rest := strings.TrimPrefix(host, "*.")
	for {
		i := strings.IndexByte(rest, '.')
		if i < 0 {
			break
		}
		rest = rest[i+1:]
		out = append(out, "*."+rest)
	}
	if host != "*" {
		out = append(out, "*")
	}
	return out
}

// oldestFirst sorts as the table does, and drops what came twice.
func oldestFirst(vs []*model.VirtualService) []*model.VirtualService {
	slices.SortFunc(vs, func(a, b *model.VirtualService) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return slices.Compact(vs)
}
