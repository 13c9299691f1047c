// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package validate

import (
	networking "istio.io/api/networking/v1alpha3"
)

func checkHTTPMatch(c checker, m *networking.HTTPMatchRequest) {
	if m == nil {
		c.refuse("it is empty", "add a condition")
		return
	}
	checkCondition(c.at("uri"), m.Uri, needsText)
	checkCondition(c.at("scheme"), m.Scheme, needsText)
	checkCondition(c.at("method"), m.Method, needsText)
	checkCondition(c.at("authority"), m.Authority, needsText)
	for _, h := range sortedKeys(m.Headers) {
		checkMatchedHeader(c.at("headers").key(h), h)
		checkCondition(c.at("headers").key(h), m.Headers[h], orPresent)
	}
	for _, h := range sortedKeys(m.WithoutHeaders) {
		checkMatchedHeader(c.at("withoutHeaders").key(h), h)
		checkCondition(c.at("withoutHeaders").key(h), m.WithoutHeaders[h], orPresent)
	}
	for _, q := range sortedKeys(m.QueryParams) {
		if q == "" {
			c.at("queryParams").refuse("the name of a parameter must not be empty", "")
		}
		checkCondition(c.at("queryParams").key(q), m.QueryParams[q], orPresent)
	}
	if m.IgnoreUriCase {
		if _, ok := m.Uri.GetMatchType().(*networking.StringMatch_Regex); ok {
			c.at("ignoreUriCase").warn("it has no effect on a regular expression", "begin the expression with (?i)")
		}
	}
	checkMatchPort(c.at("port"), m.Port)
	checkLabels(c.at("sourceLabels"), m.SourceLabels)
	checkGatewayNames(c.at("gateways"), m.Gateways)
	checkNamespace(c.at("sourceNamespace"), m.SourceNamespace)
}

// checkMatchedHeader warns of the four that have conditions of their own, which
// Istio ignores among headers.
func checkMatchedHeader(c checker, h string) {
	switch h {
	case "uri", "scheme", "method", "authority":
		c.warn("as a header it is ignored", "use the condition "+h+" of the match")
		return
	}
	checkHeaderName(c, h)
}

// emptiness says what a condition without a value means.
type emptiness int

const (
	// needsText: it matches nothing or everything, and is refused.
	needsText emptiness = iota
	// orPresent: the header or parameter is there, whatever its value.
	orPresent
)

func checkCondition(c checker, m *networking.StringMatch, e emptiness) {
	if m == nil {
		return
	}
	switch t := m.MatchType.(type) {
	case *networking.StringMatch_Exact:
		if t.Exact == "" && e == needsText {
			c.at("exact").refuse("it must not be empty", "name the value")
		}
	case *networking.StringMatch_Prefix:
		if t.Prefix == "" {
			c.at("prefix").refuse("every value has the empty prefix", "name the prefix, or leave the condition out")
		}
	case *networking.StringMatch_Regex:
		checkRegex(c.at("regex"), t.Regex)
	default:
		if e == needsText {
			c.refuse("it has no value", "use exact, prefix or regex")
		}
	}
}
