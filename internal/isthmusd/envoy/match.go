// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
)

func regex(s string) *matcherv3.RegexMatcher { return &matcherv3.RegexMatcher{Regex: s} }

// stringMatcher turns a match into Envoy's; MatchPresent becomes "anything".
func stringMatcher(m ir.StringMatch) *matcherv3.StringMatcher {
	out := &matcherv3.StringMatcher{IgnoreCase: m.IgnoreCase}
	switch m.Kind {
	case ir.MatchPrefix:
		out.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: m.Value}
	case ir.MatchSuffix:
		out.MatchPattern = &matcherv3.StringMatcher_Suffix{Suffix: m.Value}
	case ir.MatchRegex:
		out.IgnoreCase = false
		out.MatchPattern = &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex(m.Value)}
	case ir.MatchPresent:
		out.IgnoreCase = false
		out.MatchPattern = &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex(".*")}
	default:
		out.MatchPattern = &matcherv3.StringMatcher_Exact{Exact: m.Value}
	}
	return out
}

func headerMatcher(m ir.NamedMatch) *routev3.HeaderMatcher {
	out := &routev3.HeaderMatcher{Name: m.Name, InvertMatch: m.Invert}
	if m.Match.Kind == ir.MatchPresent {
		out.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}
		return out
	}
	out.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: stringMatcher(m.Match)}
	// Without this a request that lacks the header would never match "is not".
	out.TreatMissingHeaderAsEmpty = m.Invert
	return out
}

func queryMatcher(m ir.NamedMatch) *routev3.QueryParameterMatcher {
	out := &routev3.QueryParameterMatcher{Name: m.Name}
	if m.Match.Kind == ir.MatchPresent {
		out.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_PresentMatch{PresentMatch: true}
		return out
	}
	out.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_StringMatch{StringMatch: stringMatcher(m.Match)}
	return out
}

func routeMatch(m ir.RouteMatch) *routev3.RouteMatch {
	out := &routev3.RouteMatch{}
	if m.Path.IgnoreCase {
		out.CaseSensitive = no()
	}
	switch {
	case m.Connect:
		out.PathSpecifier = &routev3.RouteMatch_ConnectMatcher_{ConnectMatcher: &routev3.RouteMatch_ConnectMatcher{}}
	case m.Path.Kind == ir.MatchRegex:
		out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: regex(m.Path.Value)}
		out.CaseSensitive = nil
	case m.Path.Kind == ir.MatchPrefix:
		out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: m.Path.Value}
	case m.Path.Value == "":
		out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: "/"}
	default:
		out.PathSpecifier = &routev3.RouteMatch_Path{Path: m.Path.Value}
	}
	for _, h := range m.Headers {
		out.Headers = append(out.Headers, headerMatcher(h))
	}
	for _, q := range m.Query {
		out.QueryParameters = append(out.QueryParameters, queryMatcher(q))
	}
	return out
}

func cidrs(ps []netip.Prefix) []*corev3.CidrRange {
	var out []*corev3.CidrRange
	for _, p := range ps {
		out = append(out, &corev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: u32(uint32(p.Bits()))})
	}
	return out
}
