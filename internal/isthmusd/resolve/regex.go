// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"regexp"

	networking "istio.io/api/networking/v1alpha3"
)

// compiles tells whether Envoy takes the regular expression: both engines read
// RE2's syntax. One that it doesn't take would cost the proxy every route of the
// message, so the clause that has it matches nothing instead.
func compiles(expr string) bool {
	_, err := regexp.Compile(expr)
	return err == nil
}

// regexesCompile checks every regular expression of a match clause.
func regexesCompile(m *networking.HTTPMatchRequest) bool {
	all := []*networking.StringMatch{m.GetUri(), m.GetScheme(), m.GetMethod(), m.GetAuthority()}
	for _, by := range []map[string]*networking.StringMatch{m.GetHeaders(), m.GetWithoutHeaders(), m.GetQueryParams()} {
		for _, s := range by {
			all = append(all, s)
		}
	}
	for _, s := range all {
		if r := s.GetRegex(); r != "" && r != "*" && !compiles(r) {
			return false
		}
	}
	return true
}
