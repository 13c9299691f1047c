// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
)

// connection is what is known of one when its filter chain is chosen.
type connection struct {
	source, destination netip.AddrPort
	// internal ones have no destination until a listener filter gives them one.
	internal   bool
	serverName string
	transport  string
	protocols  []string
}

// criterion is one step of the choice. fit says how specifically a chain matches,
// 0 for not asking; two chains of one fit ask for the same value.
type criterion struct {
	name  string
	value func(connection) string
	fit   func(*listenerv3.FilterChainMatch, connection) (int, bool)
}

// criteria in Envoy's order. Each leaves only the chains that match most
// specifically; what a later one does not match never comes back to an earlier.
func criteria() []criterion {
	return []criterion{
		{"destination port", func(c connection) string { return fmt.Sprint(c.destination.Port()) }, fitPort},
		{"destination IP", func(c connection) string { return c.destination.Addr().String() }, fitDestination},
		{"server name", func(c connection) string { return fmt.Sprintf("%q", c.serverName) }, fitServerName},
		{"transport protocol", func(c connection) string { return c.transport }, fitTransport},
		{"application protocols", func(c connection) string { return fmt.Sprintf("%q", c.protocols) }, fitProtocols},
		{"directly connected source IP", func(c connection) string { return c.source.Addr().String() }, fitDirectSource},
		{"source type", func(c connection) string { return sourceType(c).String() }, fitSourceType},
		{"source IP", func(c connection) string { return c.source.Addr().String() }, fitSource},
		{"source port", func(c connection) string { return fmt.Sprint(c.source.Port()) }, fitSourcePort},
	}
}

// findChain chooses by filter_chain_match, or returns nil; say hears each step.
func findChain(chains []*listenerv3.FilterChain, c connection, say func(string, ...any)) *listenerv3.FilterChain {
	left := chains
	for _, k := range criteria() {
		before := len(left)
		best := -1
		var kept []*listenerv3.FilterChain
		for _, ch := range left {
			n, ok := k.fit(ch.GetFilterChainMatch(), c)
			switch {
			case !ok || n < best:
			case n == best:
				kept = append(kept, ch)
			default:
				best, kept = n, []*listenerv3.FilterChain{ch}
			}
		}
		left = kept
		if len(left) < before {
			say("%s %s leaves %s of %d chains", k.name, k.value(c), names(left), before)
		}
		if len(left) == 0 {
			return nil
		}
	}
	return left[0]
}

// names lists a few chains.
func names(cs []*listenerv3.FilterChain) string {
	if len(cs) == 0 {
		return "none"
	}
	var out []string
	for _, c := range cs {
		if len(out) == 4 {
			out = append(out, "…")
			break
		}
		out = append(out, fmt.Sprintf("%q", c.Name))
	}
	return strings.Join(out, ", ")
}

func fitPort(m *listenerv3.FilterChainMatch, c connection) (int, bool) {
	if m.GetDestinationPort() == nil {
		return 0, true
	}
	return 1, uint32(c.destination.Port()) == m.DestinationPort.Value
}

func fitDestination(m *listenerv3.FilterChainMatch, c connection) (int, bool) {
	return longest(m.GetPrefixRanges(), c.destination.Addr())
}

func fitDirectSource(m *listenerv3.FilterChainMatch, c connection) (int, bool) {
	return longest(m.GetDirectSourcePrefixRanges(), c.source.Addr())
}

func fitSource(m *listenerv3.FilterChainMatch, c connection) (int, bool) {
	return longest(m.GetSourcePrefixRanges(), c.source.Addr())
}

// longest is the length of the longest prefix that holds the address. No prefix at
// all is to Envoy the same as one of length 0 for each family.
func longest(ranges []*corev3.CidrRange, ip netip.Addr) (int, bool) {
	if len(ranges) == 0 {
		return 0, true
	}
	best, found := 0, false
	for _, r := range ranges {
		if p, ok := prefix(r); ok && p.Contains(ip) {
			best, found = max(best, p.Bits()), true
		}
	}
	return best, found
}

func prefix(r *corev3.CidrRange) (netip.Prefix, bool) {
	ip, err := netip.ParseAddr(r.GetAddressPrefix())
	if err != nil {
		return netip.Prefix{}, false
	}
	p, err := ip.Prefix(int(r.GetPrefixLen().GetValue()))
	return p, err == nil
}

// fitServerName prefers the name itself, then the longest wildcard.
func fitServerName(m *listenerv3.FilterChainMatch, c connection) (int, bool) {
	wanted := m.GetServerNames()
	if len(wanted) == 0 {
		return 0, true
	}
	best := 0
	for _, w := range wanted {
		suffix, wild := strings.CutPrefix(w, "*")
		switch {
		case !wild && w == c.serverName && w != "":
			best = max(best, 1<<16)
		case wild && strings.HasSuffix(c.serverName, suffix) && len(c.serverName) > len(suffix):
			best = max(best, len(suffix))
		}
	}
	return best, best > 0
}

func fitTransport(m *listenerv3.FilterChainMatch, c connection) (int, bool) {
	if m.GetTransportProtocol() == "" {
		return 0, true
	}
	return 1, m.TransportProtocol == c.transport
}

// fitProtocols goes by the order of the client's wishes.
func fitProtocols(m *listenerv3.FilterChainMatch, c connection) (int, bool) {
	wanted := m.GetApplicationProtocols()
	if len(wanted) == 0 {
		return 0, true
	}
	for i, p := range c.protocols {
		if slices.Contains(wanted, p) {
			return len(c.protocols) - i, true
		}
	}
	return 0, false
}

func sourceType(c connection) listenerv3.FilterChainMatch_ConnectionSourceType {
	if c.internal || c.source.Addr().IsLoopback() || c.source.Addr() == c.destination.Addr() {
		return listenerv3.FilterChainMatch_SAME_IP_OR_LOOPBACK
	}
	return listenerv3.FilterChainMatch_EXTERNAL
}

func fitSourceType(m *listenerv3.FilterChainMatch, c connection) (int, bool) {
	if m.GetSourceType() == listenerv3.FilterChainMatch_ANY {
		return 0, true
	}
	return 1, m.GetSourceType() == sourceType(c)
}

func fitSourcePort(m *listenerv3.FilterChainMatch, c connection) (int, bool) {
	if len(m.GetSourcePorts()) == 0 {
		return 0, true
	}
	return 1, slices.Contains(m.GetSourcePorts(), uint32(c.source.Port()))
}
