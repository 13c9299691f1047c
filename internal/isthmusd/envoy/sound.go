// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"regexp"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
)

// maxRegex bounds the length of a user's expression: Envoy refuses programs that
// grow too big, and matching costs every request.
const maxRegex = 1024

// acceptable tells whether Envoy would take a route, as far as that can be known
// without it: the rules of its messages, and expressions that compile. Go and
// Envoy share RE2's syntax.
func acceptable(m *routev3.Route, r *ir.Route) bool {
	return m.Match != nil && m.Validate() == nil && !slices.ContainsFunc(expressions(r), func(s string) bool {
		_, err := regexp.Compile(s)
		return err != nil || len(s) > maxRegex
	})
}

// expressions are the regular expressions that people wrote into a route.
func expressions(r *ir.Route) []string {
	var out []string
	add := func(m ir.StringMatch) {
		if m.Kind == ir.MatchRegex {
			out = append(out, m.Value)
		}
	}
	add(r.Match.Path)
	for _, h := range append(slices.Clone(r.Match.Headers), r.Match.Query...) {
		add(h.Match)
	}
	if r.CORS != nil {
		for _, o := range r.CORS.Origins {
			add(o)
		}
	}
	if r.Forward != nil && r.Forward.Rewrite.Regex != "" {
		out = append(out, r.Forward.Rewrite.Regex)
	}
	return out
}
