// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"net/netip"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

// tcp makes the chains of a VirtualService's TCP routes. The last may match
// everything; what comes after it is never reached and left out.
func (r *routing) tcp(vs *model.VirtualService) []ir.Chain {
	var out []ir.Chain
	for _, t := range vs.Spec.GetTcp() {
		c := r.l4Chain(vs, t.GetRoute())
		matches := t.GetMatch()
		if len(matches) == 0 {
			matches = []*networking.L4MatchAttributes{{}}
		}
		for _, m := range matches {
			if (m.GetPort() != 0 && m.GetPort() != r.port) ||
				!r.sourceApplies(vs, m.GetGateways(), m.GetSourceLabels(), m.GetSourceNamespace()) {
				continue
			}
			c.Match = ir.Match{Ranges: ranges(m.GetDestinationSubnets()), SourceRanges: ranges(oneOf(m.GetSourceSubnet()))}
			out = append(out, c)
			if len(c.Match.Ranges)+len(c.Match.SourceRanges) == 0 {
				return out
			}
		}
	}
	return out
}

// tls makes the chains of a VirtualService's TLS routes: by SNI, TLS is left alone.
func (r *routing) tls(vs *model.VirtualService) []ir.Chain {
	var out []ir.Chain
	for _, t := range vs.Spec.GetTls() {
		c := r.l4Chain(vs, t.GetRoute())
		for _, m := range t.GetMatch() {
			if (m.GetPort() != 0 && m.GetPort() != r.port) ||
				!r.sourceApplies(vs, m.GetGateways(), m.GetSourceLabels(), m.GetSourceNamespace()) {
				continue
			}
			c.Match = ir.Match{ServerNames: serverNames(m.GetSniHosts()), Ranges: ranges(m.GetDestinationSubnets())}
			if len(c.Match.ServerNames) > 0 {
				out = append(out, c)
			}
		}
	}
	return out
}

func (r *routing) l4Chain(vs *model.VirtualService, route []*networking.RouteDestination) ir.Chain {
	t := &ir.TCP{AccessLog: accessLog(r.s.v)}
	keep := false
	for _, d := range route {
		if d.GetWeight() == 0 && len(route) > 1 {
			continue
		}
		k := r.destination(d.GetDestination(), vs.Namespace)
		t.Clusters = append(t.Clusters, ir.WeightedCluster{
			Cluster: outboundCluster(k.port, k.subset, k.host), Weight: uint32(max(d.GetWeight(), 1)),
		})
		if to, ok := r.s.destination(k); ok {
			keep = keep || tunnelled(to.svc, to.port)
		}
		t.HashSource = t.HashSource || r.s.policy(k).loadBalancer.GetConsistentHash().GetUseSourceIp()
	}
	if len(t.Clusters) == 0 {
		t.Clusters = one(blackHoleCluster)
	}
	t.StatPrefix = t.Clusters[0].Cluster
	return ir.Chain{Name: t.StatPrefix, KeepDialled: keep, TCP: t}
}

func oneOf(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// ranges reads addresses and ranges; what is neither is left out.
func ranges(list []string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p.Masked())
		} else if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return out
}

// unconditional is the first chain that takes every connection.
func unconditional(chains []ir.Chain) (ir.Chain, bool) {
	for _, c := range chains {
		if len(c.Match.Ranges)+len(c.Match.SourceRanges)+len(c.Match.ServerNames) == 0 {
			return c, true
		}
	}
	return ir.Chain{}, false
}

// serverNames leaves out what Envoy would refuse: stars other than a whole first label.
func serverNames(names []string) []string {
	var out []string
	for _, n := range names {
		n = strings.ToLower(n)
		if n == "*" || (validDomain(n) && (!strings.HasPrefix(n, "*") || strings.HasPrefix(n, "*."))) {
			out = append(out, n)
		}
	}
	return out
}
