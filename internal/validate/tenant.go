// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package validate

import (
	"net/netip"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

// forbidden is a range that no tenant may be led to: the proxy that connects, the
// egress gateway above all, would reach what its own host keeps to itself.
type forbidden struct {
	prefix netip.Prefix
	why    string
}

func alwaysForbidden() []forbidden {
	list := []struct{ cidr, why string }{
		{"169.254.0.0/16", "link-local addresses, where clouds serve machine credentials"},
		{"fe80::/10", "link-local addresses"},
		{"fd00:ec2::254/128", "an address where clouds serve machine credentials"},
		{"127.0.0.0/8", "loopback addresses of the proxy"},
		{"::1/128", "the loopback address of the proxy"},
		{"0.0.0.0/32", "the unspecified address"},
		{"::/128", "the unspecified address"},
	}
	out := make([]forbidden, 0, len(list))
	for _, f := range list {
		out = append(out, forbidden{netip.MustParsePrefix(f.cidr), f.why})
	}
	return out
}

// checkTenant holds outside the root namespace: who may write a ServiceEntry in one
// namespace must not open the way to everything, nor to addresses that are nobody's
// service. Names that resolve to such addresses are caught where they are resolved.
func checkTenant(c checker, s *networking.ServiceEntry, rules Rules) {
	for i, h := range s.Hosts {
		at := c.at("hosts").index(i)
		host := strings.TrimSuffix(strings.ToLower(h), ".")
		switch {
		case host == "*":
			at.refuse(`only the root namespace may open every host`, "name the hosts, or ask the mesh's administrators")
		case isWildcard(host) && strings.Count(host, ".") <= 1:
			at.refuse(quote(h)+" covers a whole top-level domain, which only the root namespace may do", "use a wildcard below a domain, such as *.example.com")
		}
		checkLocalName(at, host)
	}
	ranges := alwaysForbidden()
	if s.Location == networking.ServiceEntry_MESH_EXTERNAL {
		ranges = rules.forbidden()
	}
	for i, a := range s.Addresses {
		checkForbidden(c.at("addresses").index(i), a, ranges)
	}
	for i, e := range s.Endpoints {
		checkTenantEndpoint(c.at("endpoints").index(i), e, ranges)
	}
}

// checkTenantEndpoint holds for endpoints in a ServiceEntry and on their own.
func checkTenantEndpoint(c checker, e *networking.WorkloadEntry, ranges []forbidden) {
	at := c.at("address")
	checkForbidden(at, e.GetAddress(), ranges)
	checkLocalName(at, e.GetAddress())
	if strings.HasPrefix(e.GetAddress(), "unix:") {
		at.refuse("a socket of the proxy is not for tenants", "use an address or a host")
	}
}

// forbidden are all ranges that no endpoint outside the mesh may lie in.
func (r Rules) forbidden() []forbidden {
	out := alwaysForbidden()
	for _, p := range r.Reserved {
		out = append(out, forbidden{p, "addresses of pods, Services or the API server"})
	}
	return out
}

// checkLocalName refuses what every resolver answers with loopback.
func checkLocalName(c checker, host string) {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		c.refuse(quote(host)+" is the proxy itself", rightHost)
	}
}

func checkForbidden(c checker, address string, ranges []forbidden) {
	p, ok := parseRange(address)
	if !ok {
		return
	}
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	for _, f := range ranges {
		if f.prefix.Overlaps(p) {
			c.refuse(quote(address)+" reaches "+f.why, "use addresses of the external service only")
			return
		}
	}
}
