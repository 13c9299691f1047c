// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// egressTarget is what one key at the egress gateway stands for: a port of an
// entry, a subset of it, and in whose eyes.
type egressTarget struct {
	svc    *model.Service
	port   model.Port
	subset string
	// policyNS is where the DestinationRules come from: the entry's namespace, or
	// that of a caller with a rule of its own for an entry of the root namespace.
	policyNS string
	key      string
	s        *scope // as that namespace sees the world
}

// innerName names the listener, and the cluster that leads to it, in which the
// server name inside the tunnel is checked.
func (t egressTarget) innerName() string { return innerPrefix + t.key }

const innerPrefix = "inner|"

// behind tells whether a second listener looks at what the tunnel carries.
func (t egressTarget) behind() bool { return t.port.Protocol.IsTLS() || t.tunnelled() || t.detected() }

// detected tells whether the port's protocol is found out on the wire.
func (t egressTarget) detected() bool { return t.port.Protocol == model.Auto }

// bytesOnly tells whether the gateway passes the port's bytes on without looking.
func (t egressTarget) bytesOnly() bool { return !t.port.Protocol.IsHTTP() && !t.port.Protocol.IsTLS() }

func (t egressTarget) destination() destination {
	k := subsetKey{port: t.port.Number, subset: t.subset, host: t.svc.Host}
	return destination{key: k, svc: t.svc, port: t.port, policy: t.s.policy(k)}
}

// egressScope sees the world as a namespace does, for the gateway to apply that
// namespace's policies.
func egressScope(v *snapshot.View, ns string) *scope {
	return &scope{v: v, root: v.Config().Namespace, router: true, behalf: ns}
}

// egressTargets lists everything that the egress gateway opens: every port of
// every registered external service. Who may use it is decided chain by chain.
func egressTargets(v *snapshot.View) []egressTarget {
	var out []egressTarget
	for _, svc := range v.Services() {
		out = append(out, targetsOf(v, svc)...)
	}
	return distinctKeys(out)
}

// targetsOf lists the targets of one service.
func targetsOf(v *snapshot.View, svc *model.Service) []egressTarget {
	if !registeredOutside(svc) {
		return nil
	}
	var out []egressTarget
	for _, ns := range policyNamespaces(v, svc) {
		s := egressScope(v, ns)
		if s.service(svc.Host) != svc {
			continue
		}
		for _, p := range tcpPorts(svc) {
			for _, sub := range append([]string{""}, s.subsets(svc)...) {
				out = append(out, egressTarget{
					svc: svc, port: p, subset: sub, policyNS: ns, s: s,
					key: egressKey(s, svc, p.Number, sub),
				})
			}
		}
	}
	return out
}

// distinctKeys drops targets that a namespace shares with the entry's own.
func distinctKeys(ts []egressTarget) []egressTarget {
	seen := map[string]bool{}
	return slices.DeleteFunc(ts, func(t egressTarget) bool {
		dup := seen[t.key]
		seen[t.key] = true
		return dup
	})
}

// policyNamespaces lists in whose eyes an entry is used: its own namespace's
// first, and for the root namespace's entries of each that has rules of its own.
func policyNamespaces(v *snapshot.View, svc *model.Service) []string {
	out := []string{svc.Namespace}
	if svc.Namespace != v.Config().Namespace {
		return out
	}
	for _, d := range v.DestinationRulesByHost(svc.Host) {
		if !slices.Contains(out, d.Namespace) {
			out = append(out, d.Namespace)
		}
	}
	return out
}

// policyNamespace is where the rules come from by which this scope reaches an
// entry: its own, if it has some for an entry of the root namespace.
func policyNamespace(s *scope, svc *model.Service) string {
	if svc.Namespace != s.root {
		return svc.Namespace
	}
	rules := s.rules(svc.Host, svc.Namespace)
	if len(rules) == 0 || rules[0].Namespace == svc.Namespace || !s.in(rules[0].Namespace) {
		return svc.Namespace
	}
	return rules[0].Namespace
}

// findTarget finds the target with a key. A key in clear names its host; a hash
// is looked for among all.
func findTarget(v *snapshot.View, key string) (egressTarget, bool) {
	services := v.ServicesByHost(hostOfKey(key))
	if strings.HasSuffix(key, hashedSuffix) {
		services = v.Services()
	}
	for _, svc := range services {
		for _, t := range targetsOf(v, svc) {
			if t.key == key {
				return t, true
			}
		}
	}
	return egressTarget{}, false
}

// callers may use a target: a tenant's entry is open to its own namespace and to
// the platform's gateways, the root namespace's to every member of the mesh.
func (t egressTarget) callers() []string {
	c := t.s.v.Config()
	base := "spiffe://" + c.TrustDomain + "/"
	in := func(ns string) string { return base + "ns/" + ns + "/sa/*" }
	switch {
	case t.policyNS != t.svc.Namespace:
		return []string{in(t.policyNS)}
	case t.svc.Namespace == t.s.root:
		return []string{base + "*"}
	}
	return []string{in(t.svc.Namespace), in(t.s.root)}
}

// names lists the hosts that may be asked for on a target: the entry's own, and
// what the VirtualServices of its namespace or the root's send to it under
// another registered name.
func (t egressTarget) names(l7 func(*model.VirtualService, *routing) []string) []string {
	out := []string{t.svc.Host}
	r := meshRouting(t.s, t.port.Number)
	for _, vs := range t.s.v.VirtualServices() {
		if vs.Namespace != t.svc.Namespace && vs.Namespace != t.s.root {
			continue
		}
		for _, n := range l7(vs, r) {
			n = strings.ToLower(n)
			if n != "" && n != "*" && !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	slices.Sort(out)
	return out
}

// authorities are the hosts under which HTTP requests may leave.
func (t egressTarget) authorities() []string {
	return t.names(func(vs *model.VirtualService, r *routing) []string {
		var out []string
		for _, h := range r.delegated(vs) {
			for _, d := range h.route.GetRoute() {
				if r.destination(d.GetDestination(), h.vs.Namespace).host != t.svc.Host {
					continue
				}
				ops, own := headerOps(h.route.GetHeaders()), headerOps(d.GetHeaders())
				changed := firstNonEmpty(takeAuthority(&own), h.route.GetRewrite().GetAuthority(), takeAuthority(&ops))
				if changed != "" {
					out = append(out, changed)
					continue
				}
				out = append(out, t.registered(vs.Spec.GetHosts())...)
			}
		}
		return out
	})
}

// serverNames are the names that TLS may ask for inside the tunnel.
func (t egressTarget) serverNames() []string {
	return t.names(func(vs *model.VirtualService, r *routing) []string {
		var out []string
		for _, route := range vs.Spec.GetTls() {
			for _, d := range route.GetRoute() {
				if r.destination(d.GetDestination(), vs.Namespace).host != t.svc.Host {
					continue
				}
				for _, m := range route.GetMatch() {
					out = append(out, t.registered(m.GetSniHosts())...)
				}
			}
		}
		return out
	})
}

// registered leaves those names that the target's namespace has an entry for.
func (t egressTarget) registered(hosts []string) []string {
	return slices.DeleteFunc(slices.Clone(hosts), func(h string) bool {
		svc := t.s.service(strings.ToLower(h))
		return svc == nil || !registeredOutside(svc)
	})
}

func firstNonEmpty(ss ...string) string {
	for _, s := range ss {
		if s != "" {
			return s
		}
	}
	return ""
}

// egressPort is the port that the gateway listens on for sidecars.
func egressPort(v *snapshot.View) uint32 {
	port := uint32(v.Config().EgressGateway.Port)
	if t, ok := gatewayTargets(v)[port]; ok {
		return t
	}
	return port
}

// dynamic tells whether the host is known only when somebody asks for it.
func (t egressTarget) dynamic() bool { return isWildcard(t.svc.Host) }

// dnsCache is the one in which all names are resolved that requests bring along.
func dnsCache(v *snapshot.View) ir.DNSCache {
	return ir.DNSCache{Name: "egress", Family: family(v), Outside: true}
}
