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
		if d != "" && !c[d] {
			c[d] = true
			out = append(out, d)
		}
	}
	return out
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

// hostTable collects virtual hosts. Full names are claimed before any alias, so
// that an alias never takes what is somebody's name.
type hostTable struct {
	entries []hostEntry
}

type hostEntry struct {
	host          string
	names, others []string
	routes        []ir.Route
}

func (t *hostTable) add(e hostEntry) { t.entries = append(t.entries, e) }

func (t *hostTable) virtualHosts(port uint32) []ir.VirtualHost {
	taken := claims{}
	own := make([][]string, len(t.entries))
	for i, e := range t.entries {
		own[i] = taken.take(e.names)
	}
	var out []ir.VirtualHost
	for i, e := range t.entries {
		if domains := append(own[i], taken.take(e.others)...); len(domains) > 0 {
			out = append(out, ir.VirtualHost{Name: e.host + ":" + portString(port), Domains: domains, Routes: e.routes})
		}
	}
	return out
}
