// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	networkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// errNoMatch says that a matcher has no answer.
var errNoMatch = errors.New("nothing matches")

// matchTree evaluates the generic matcher of a listener to the name of a chain.
func matchTree(m *xdsmatcherv3.Matcher, c connection) (string, error) {
	var on *xdsmatcherv3.Matcher_OnMatch
	var err error
	switch t := m.GetMatcherType().(type) {
	case *xdsmatcherv3.Matcher_MatcherTree_:
		return matchTreeNode(t.MatcherTree, m.GetOnNoMatch(), c)
	case *xdsmatcherv3.Matcher_MatcherList_:
		for _, f := range t.MatcherList.GetMatchers() {
			ok, perr := matchPredicate(f.GetPredicate(), c)
			if perr != nil {
				return "", perr
			}
			if ok {
				on = f.GetOnMatch()
				break
			}
		}
	default:
		err = notModelled("matcher %T", m.GetMatcherType())
	}
	if err != nil {
		return "", err
	}
	return matched(firstOf(on, m.GetOnNoMatch()), c)
}

func firstOf(a, b *xdsmatcherv3.Matcher_OnMatch) *xdsmatcherv3.Matcher_OnMatch {
	if a != nil {
		return a
	}
	return b
}

// matched is what an entry leads to: a name, or another matcher.
func matched(on *xdsmatcherv3.Matcher_OnMatch, c connection) (string, error) {
	switch t := on.GetOnMatch().(type) {
	case *xdsmatcherv3.Matcher_OnMatch_Action:
		s, ok, err := unpack(t.Action.GetTypedConfig(), &wrapperspb.StringValue{})
		if err == nil && !ok {
			err = notModelled("matcher action %s", t.Action.GetTypedConfig().GetTypeUrl())
		}
		return s.GetValue(), err
	case *xdsmatcherv3.Matcher_OnMatch_Matcher:
		return matchTree(t.Matcher, c)
	}
	return "", errNoMatch
}

// matchTreeNode tries the entries that fit, the most specific first; an entry whose
// own matcher finds nothing lets the next one try.
func matchTreeNode(t *xdsmatcherv3.Matcher_MatcherTree, none *xdsmatcherv3.Matcher_OnMatch, c connection) (string, error) {
	value, err := input(t.GetInput(), c)
	if err != nil {
		return "", err
	}
	var found []*xdsmatcherv3.Matcher_OnMatch
	switch k := t.GetTreeType().(type) {
	case *xdsmatcherv3.Matcher_MatcherTree_ExactMatchMap:
		if on := k.ExactMatchMap.GetMap()[value]; on != nil {
			found = append(found, on)
		}
	case *xdsmatcherv3.Matcher_MatcherTree_PrefixMatchMap:
		for n := len(value); n > 0; n-- {
			if on := k.PrefixMatchMap.GetMap()[value[:n]]; on != nil {
				found = append(found, on)
			}
		}
	case *xdsmatcherv3.Matcher_MatcherTree_CustomMatch:
		ips, ok, err := unpack(k.CustomMatch.GetTypedConfig(), &xdsmatcherv3.IPMatcher{})
		if err != nil {
			return "", err
		}
		if !ok {
			return "", notModelled("custom matcher %s", k.CustomMatch.GetTypedConfig().GetTypeUrl())
		}
		found = byRange(ips, value)
	}
	for _, on := range append(found, none) {
		name, err := matched(on, c)
		if !errors.Is(err, errNoMatch) {
			return name, err
		}
	}
	return "", errNoMatch
}

// byRange lists what the ranges that hold the address lead to, longest first. After
// an exclusive range nothing shorter is tried.
func byRange(m *xdsmatcherv3.IPMatcher, value string) []*xdsmatcherv3.Matcher_OnMatch {
	ip, err := netip.ParseAddr(value)
	if err != nil {
		return nil
	}
	type hit struct {
		bits int
		*xdsmatcherv3.IPMatcher_IPRangeMatcher
	}
	var hits []hit
	for _, r := range m.GetRangeMatchers() {
		best := -1
		for _, p := range r.GetRanges() {
			if n, ok := inRange(p, ip); ok {
				best = max(best, n)
			}
		}
		if best >= 0 {
			hits = append(hits, hit{best, r})
		}
	}
	slices.SortStableFunc(hits, func(a, b hit) int { return b.bits - a.bits })
	var out []*xdsmatcherv3.Matcher_OnMatch
	for _, h := range hits {
		out = append(out, h.GetOnMatch())
		if h.GetExclusive() {
			break
		}
	}
	return out
}

func inRange(r *xdscorev3.CidrRange, ip netip.Addr) (int, bool) {
	a, err := netip.ParseAddr(r.GetAddressPrefix())
	if err != nil {
		return 0, false
	}
	p, err := a.Prefix(int(r.GetPrefixLen().GetValue()))
	return p.Bits(), err == nil && p.Contains(ip)
}

// input is a property of the connection, as text.
func input(i *xdscorev3.TypedExtensionConfig, c connection) (string, error) {
	a := i.GetTypedConfig()
	switch {
	case a.MessageIs(&networkv3.DestinationIPInput{}):
		return c.destination.Addr().String(), nil
	case a.MessageIs(&networkv3.DestinationPortInput{}):
		return fmt.Sprint(c.destination.Port()), nil
	case a.MessageIs(&networkv3.SourceIPInput{}), a.MessageIs(&networkv3.DirectSourceIPInput{}):
		return c.source.Addr().String(), nil
	case a.MessageIs(&networkv3.SourcePortInput{}):
		return fmt.Sprint(c.source.Port()), nil
	case a.MessageIs(&networkv3.ServerNameInput{}):
		return c.serverName, nil
	case a.MessageIs(&networkv3.TransportProtocolInput{}):
		return c.transport, nil
	case a.MessageIs(&networkv3.ApplicationProtocolInput{}):
		var quoted []string
		for _, p := range c.protocols {
			quoted = append(quoted, "'"+p+"'")
		}
		return strings.Join(quoted, ","), nil
	}
	return "", notModelled("matcher input %s", a.GetTypeUrl())
}

func matchPredicate(p *xdsmatcherv3.Matcher_MatcherList_Predicate, c connection) (bool, error) {
	switch t := p.GetMatchType().(type) {
	case *xdsmatcherv3.Matcher_MatcherList_Predicate_SinglePredicate_:
		value, err := input(t.SinglePredicate.GetInput(), c)
		if err != nil {
			return false, err
		}
		return matchXDSString(t.SinglePredicate.GetValueMatch(), value)
	case *xdsmatcherv3.Matcher_MatcherList_Predicate_NotMatcher:
		ok, err := matchPredicate(t.NotMatcher, c)
		return !ok, err
	case *xdsmatcherv3.Matcher_MatcherList_Predicate_OrMatcher:
		for _, q := range t.OrMatcher.GetPredicate() {
			if ok, err := matchPredicate(q, c); ok || err != nil {
				return ok, err
			}
		}
		return false, nil
	case *xdsmatcherv3.Matcher_MatcherList_Predicate_AndMatcher:
		for _, q := range t.AndMatcher.GetPredicate() {
			if ok, err := matchPredicate(q, c); !ok || err != nil {
				return ok, err
			}
		}
		return true, nil
	}
	return false, notModelled("matcher predicate %T", p.GetMatchType())
}

func matchXDSString(m *xdsmatcherv3.StringMatcher, s string) (bool, error) {
	fold := func(x string) string {
		if m.GetIgnoreCase() {
			return strings.ToLower(x)
		}
		return x
	}
	switch p := m.GetMatchPattern().(type) {
	case *xdsmatcherv3.StringMatcher_Exact:
		return fold(s) == fold(p.Exact), nil
	case *xdsmatcherv3.StringMatcher_Prefix:
		return strings.HasPrefix(fold(s), fold(p.Prefix)), nil
	case *xdsmatcherv3.StringMatcher_Suffix:
		return strings.HasSuffix(fold(s), fold(p.Suffix)), nil
	case *xdsmatcherv3.StringMatcher_Contains:
		return strings.Contains(fold(s), fold(p.Contains)), nil
	case *xdsmatcherv3.StringMatcher_SafeRegex:
		return fullRegex(p.SafeRegex.GetRegex(), s)
	}
	return false, notModelled("string matcher %T", m.GetMatchPattern())
}
