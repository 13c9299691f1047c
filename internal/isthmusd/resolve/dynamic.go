// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"regexp"
	"strings"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// An entry for a wildcard with resolution DYNAMIC_DNS leads to the host that each
// request names. HTTP names it to the cluster. TLS names it in its first bytes,
// which Envoy resolves only in a filter chain, so its cluster leads to one:
//
//	HTTP  chain ─ cluster ─ any.example.org
//	TLS   chain ─ cluster ─ listener dynamic|… ─ cluster dynamic|… ─ any.example.org
//
// As with tunnels the two at the end are there in every topology, so that moving
// between topologies changes clusters only.
const dynamicPrefix = "dynamic|"

// lookedUp tells whether the host is known only when somebody asks for it.
func lookedUp(svc *model.Service) bool {
	return svc.Resolution == model.DynamicDNS && isWildcard(svc.Host)
}

// bySNI tells whether a port's host is named by the first bytes of TLS.
func bySNI(svc *model.Service, p model.Port) bool { return lookedUp(svc) && p.Protocol.IsTLS() }

// dynamicOf finds the destination that such a name stands for.
func (s *scope) dynamicOf(name string) (destination, bool) {
	return s.behind(dynamicPrefix, name, bySNI)
}

// dynamicListener looks the server name up, if it is one of the entry's.
func dynamicListener(s *scope, name string) *ir.Listener {
	d, ok := s.dynamicOf(name)
	if !ok {
		return nil
	}
	return &ir.Listener{
		Name: name, Direction: ir.Outbound, Binding: ir.Internal,
		Inspect: ir.Inspection{TLS: true, Timeout: detectionTimeout(s.v)},
		Chains: []ir.Chain{{
			Name:        name,
			Match:       ir.Match{ServerNames: s.asTarget(d).serverNames()},
			DynamicHost: &ir.DynamicHost{Port: endpointPort(model.Endpoint{}, d.port), Cache: s.cache()},
			TCP:         &ir.TCP{StatPrefix: name, Clusters: one(name)},
		}},
		Default: &ir.Chain{Name: "sni_mismatch", TCP: &ir.TCP{StatPrefix: "sni_mismatch", Clusters: one(blackHoleCluster)}},
	}
}

// dynamicCluster is where that listener leads. It carries the entry's policy; where
// the egress gateway does, it has nobody to serve.
func dynamicCluster(s *scope, name string) *ir.Cluster {
	d, ok := s.dynamicOf(name)
	if !ok {
		return nil
	}
	c := &ir.Cluster{Name: name, Discovery: ir.Static, Services: []ir.ServiceRef{serviceRef(d.svc)}}
	if via(s, d.svc) {
		return c
	}
	c.Discovery, c.Cache = ir.Dynamic, s.cache()
	s.applyPolicy(c, d)
	c.Balance = ir.Balance{Policy: ir.Chosen}
	s.secure(c, d)
	return c
}

// lookUp makes a cluster resolve what requests name. It asks them for a host of the
// entry and for its port: a route may lead here from any host.
func (s *scope) lookUp(c *ir.Cluster, d destination) {
	if bySNI(d.svc, d.port) {
		c.Discovery, c.Tunnelled = ir.Static, true
		c.Localities = []ir.Locality{{Endpoints: []ir.Endpoint{{Address: dynamicPrefix + c.Name, Internal: true}}}}
		return
	}
	c.Discovery, c.Cache = ir.Dynamic, s.cache()
}

// askedFor are the authorities that lead to a looked-up destination. A port that is
// not named is the one of the scheme.
func (s *scope) askedFor(c *ir.Cluster, d destination) []ir.StringMatch {
	port, standard := endpointPort(model.Endpoint{}, d.port), uint32(80)
	if c.TLS != nil {
		standard = 443
	}
	suffix := ":" + portString(port)
	if port == standard {
		suffix = "(" + suffix + ")?"
	}
	var out []ir.StringMatch
	for _, host := range s.asTarget(d).authorities() {
		name := regexp.QuoteMeta(host)
		if rest, ok := strings.CutPrefix(host, "*"); ok {
			name = "[^:]+" + regexp.QuoteMeta(rest)
		}
		out = append(out, ir.StringMatch{Kind: ir.MatchRegex, Value: "(?i)" + name + suffix})
	}
	return out
}

// asTarget is what the destination would be at the egress gateway: which names
// lead there is the same question.
func (s *scope) asTarget(d destination) egressTarget {
	return egressTarget{svc: d.svc, port: d.port, subset: d.key.subset, policyNS: d.svc.Namespace, s: s}
}

// cache is the one of a sidecar, which may go where its application may, or of a
// gateway, which may not go where names lead that anybody outside can choose.
func (s *scope) cache() ir.DNSCache {
	return ir.DNSCache{Name: "dynamic", Family: family(s.v), Outside: s.router}
}

// gatewayDynamics lists a gateway's listeners and clusters behind TLS whose host is
// looked up.
func gatewayDynamics(v *snapshot.View) []string {
	var out []string
	s := newScope(v)
	for _, k := range gatewayDestinations(s) {
		if d, ok := s.destination(k); ok && bySNI(d.svc, d.port) {
			out = append(out, dynamicPrefix+outboundCluster(k.port, k.subset, k.host))
		}
	}
	return out
}
