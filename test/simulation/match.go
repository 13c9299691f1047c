// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// unknown is an error about what the package does not model.
type unknown struct{ what string }

func (u unknown) Error() string { return u.what + " is not modelled" }

func notModelled(format string, args ...any) error { return unknown{fmt.Sprintf(format, args...)} }

// fullRegex is Envoy's kind of match: all of the text. Both use RE2.
func fullRegex(expression, text string) (bool, error) {
	re, err := regexp.Compile(`\A(?:` + expression + `)\z`)
	if err != nil {
		return false, fmt.Errorf("expression %q: %w", expression, err)
	}
	return re.MatchString(text), nil
}

func matchString(m *matcherv3.StringMatcher, s string) (bool, error) {
	fold := func(x string) string {
		if m.GetIgnoreCase() {
			return strings.ToLower(x)
		}
		return x
	}
	text := fold(s)
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		return text == fold(p.Exact), nil
	case *matcherv3.StringMatcher_Prefix:
		return strings.HasPrefix(text, fold(p.Prefix)), nil
	case *matcherv3.StringMatcher_Suffix:
		return strings.HasSuffix(text, fold(p.Suffix)), nil
	case *matcherv3.StringMatcher_Contains:
		return strings.Contains(text, fold(p.Contains)), nil
	case *matcherv3.StringMatcher_SafeRegex:
		return fullRegex(p.SafeRegex.GetRegex(), s)
	}
	return false, notModelled("string matcher %T", m.GetMatchPattern())
}

// matchHeader follows Envoy: a header that is missing matches no rule about its
// value, inverted or not, unless the rule treats it as empty. Of several values one
// that matches is enough, and inverted one that matches is too many.
func matchHeader(m *routev3.HeaderMatcher, r Request) (bool, error) {
	values := r.header(m.Name)
	if p, ok := m.GetHeaderMatchSpecifier().(*routev3.HeaderMatcher_PresentMatch); ok || m.GetHeaderMatchSpecifier() == nil {
		wanted := !ok || p.PresentMatch
		return (len(values) > 0 || m.TreatMissingHeaderAsEmpty) == wanted != m.InvertMatch, nil
	}
	if len(values) == 0 && !m.TreatMissingHeaderAsEmpty {
		return false, nil
	}
	if len(values) == 0 {
		values = []string{""}
	}
	ok, err := anyOf(values, func(v string) (bool, error) { return matchHeaderValue(m, v) })
	return ok != m.InvertMatch, err
}

//nolint:staticcheck // the deprecated matchers are still in use
func matchHeaderValue(m *routev3.HeaderMatcher, value string) (bool, error) {
	switch p := m.GetHeaderMatchSpecifier().(type) {
	case *routev3.HeaderMatcher_StringMatch:
		return matchString(p.StringMatch, value)
	case *routev3.HeaderMatcher_ExactMatch:
		return p.ExactMatch == "" || value == p.ExactMatch, nil
	case *routev3.HeaderMatcher_SafeRegexMatch:
		return fullRegex(p.SafeRegexMatch.GetRegex(), value)
	case *routev3.HeaderMatcher_PrefixMatch:
		return strings.HasPrefix(value, p.PrefixMatch), nil
	case *routev3.HeaderMatcher_SuffixMatch:
		return strings.HasSuffix(value, p.SuffixMatch), nil
	case *routev3.HeaderMatcher_ContainsMatch:
		return strings.Contains(value, p.ContainsMatch), nil
	case *routev3.HeaderMatcher_RangeMatch:
		n, err := strconv.ParseInt(value, 10, 64)
		return err == nil && n >= p.RangeMatch.GetStart() && n < p.RangeMatch.GetEnd(), nil
	}
	return false, notModelled("header matcher %T", m.GetHeaderMatchSpecifier())
}

// matchQuery looks at the first value of the parameter.
func matchQuery(m *routev3.QueryParameterMatcher, query map[string][]string) (bool, error) {
	values, present := query[m.Name]
	switch p := m.GetQueryParameterMatchSpecifier().(type) {
	case nil:
		return present, nil
	case *routev3.QueryParameterMatcher_PresentMatch:
		return present == p.PresentMatch, nil
	case *routev3.QueryParameterMatcher_StringMatch:
		if !present {
			return false, nil
		}
		return matchString(p.StringMatch, values[0])
	}
	return false, notModelled("query matcher %T", m.GetQueryParameterMatchSpecifier())
}

// splitQuery takes a query apart as Envoy does, which decodes nothing.
func splitQuery(path string) (string, map[string][]string) {
	path, _, _ = strings.Cut(path, "#")
	path, raw, _ := strings.Cut(path, "?")
	query := map[string][]string{}
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		k, v, _ := strings.Cut(pair, "=")
		query[k] = append(query[k], v)
	}
	return path, query
}
