// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"strings"

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
// proxy's namespace would complete them.
func (s *scope) shortNames(svc *model.Service) []string {
	if svc.Name == "" || svc.Host != svc.Name+"."+svc.Namespace+".svc."+s.v.Config().ClusterDomain {
		return nil
	}
	out := []string{svc.Name + "." + svc.Namespace, svc.Name + "." + svc.Namespace + ".svc"}
	if s.in(svc.Namespace) {
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
