// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"strings"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

// claims keeps domains unique: Envoy refuses a whole table for one domain that
// stands twice.
type claims map[string]bool

// take returns those of the domains that nobody has, and keeps them.
func (c claims) take(domains []string) []string {
	var out []string
	for _, d := range domains {
		d = strings.ToLower(d)
		if validDomain(d) && !c[d] {
			c[d] = true
			out = append(out, d)
		}
	}
	return out
}

// validDomain tells whether Envoy takes a name as a domain or server name: plain,
// or with one star at its beginning.
func validDomain(d string) bool {
	rest := strings.TrimPrefix(d, "*")
	return d != "" && len(d) <= 255 && !strings.ContainsFunc(rest, func(r rune) bool {
		return r == '*' || r <= ' ' || r > '~'
	})
}

// shortNames are the other names of a Kubernetes Service, as a resolver in the
// namespace would complete them.
func shortNames(svc *model.Service, ns, clusterDomain string) []string {
	if svc.Name == "" || svc.Host != svc.Name+"."+svc.Namespace+".svc."+clusterDomain {
		return nil
	}
	out := []string{svc.Name + "." + svc.Namespace, svc.Name + "." + svc.Namespace + ".svc"}
	if svc.Namespace == ns {
		out = append(out, svc.Name)
	}
	if !svc.Headless {
		return out
	}
	for _, n := range append([]string{svc.Host}, out...) {
		out = append(out, "*."+n)
	}
	return out
}

// addressDomains are the virtual addresses as they stand in a Host header.
func addressDomains(s *scope, svc *model.Service) []string {
	var out []string
	for _, ip := range virtualIPs(s.v, svc) {
		if ip.Is4() {
			out = append(out, ip.String())
			continue
		}
		out = append(out, "["+ip.String()+"]")
	}
	return out
}

// hostTable collects virtual hosts. Names are claimed in this order: Kubernetes
// Services with all their short names and addresses, then other hosts by name,
// then their addresses; so no entry takes what the cluster's DNS gives to a Service.
type hostTable struct {
	entries []hostEntry
}

type hostEntry struct {
	host string
	// service is set for Kubernetes Services.
	service       bool
	names, others []string
	routes        []ir.Route
}

func (t *hostTable) add(e hostEntry) { t.entries = append(t.entries, e) }

func (t *hostTable) virtualHosts(port uint32) []ir.VirtualHost {
	taken := claims{}
	own := make([][]string, len(t.entries))
	claim := func(service bool, domains func(hostEntry) []string) {
		for i, e := range t.entries {
			if e.service == service {
				own[i] = append(own[i], taken.take(domains(e))...)
			}
		}
	}
	names := func(e hostEntry) []string { return e.names }
	others := func(e hostEntry) []string { return e.others }
	claim(true, names)
	claim(true, others)
	claim(false, names)
	claim(false, others)
	var out []ir.VirtualHost
	for i, e := range t.entries {
		if len(own[i]) > 0 {
			out = append(out, ir.VirtualHost{Name: e.host + ":" + portString(port), Domains: own[i], Routes: e.routes})
		}
	}
	return out
}
