// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package intercept

import (
	"net/netip"
	"slices"
)

// Table is the name of the table that holds every rule; it is replaced whole.
const Table = "isthmus"

// Ports of agent and Envoy that must never be intercepted: merged metrics and
// probes, health, Envoy's own metrics.
const (
	statusPort  = 15020
	healthPort  = 15021
	metricsPort = 15090
)

// Plan is the table to install.
type Plan struct {
	Chains []Chain
}

// Chain is a NAT chain at one hook, for the first packet of each connection.
type Chain struct {
	Name  string
	Hook  Hook
	Rules []Rule
}

// Hook is where in the path of a packet a chain applies.
type Hook string

// The two hooks.
const (
	Prerouting Hook = "prerouting"
	Output     Hook = "output"
)

// Rule returns or redirects what all its matches cover. Redirect 0 means return.
type Rule struct {
	Why      string
	Match    []Match
	Redirect uint16
}

// Match is one condition; exactly one field other than Not is set.
type Match struct {
	Not                bool
	TCP                bool
	Ports              []uint16 // TCP destination ports
	Source, Dest       netip.Prefix
	OutLink, InLink    string
	OwnerUID, OwnerGID *uint32
}

func tcp() Match                  { return Match{TCP: true} }
func ports(p ...uint16) Match     { return Match{Ports: p} }
func source(p netip.Prefix) Match { return Match{Source: p} }
func dest(p netip.Prefix) Match   { return Match{Dest: p} }
func outLink(name string) Match   { return Match{OutLink: name} }
func inLink(name string) Match    { return Match{InLink: name} }
func uid(id uint32) Match         { return Match{OwnerUID: &id} }
func gid(id uint32) Match         { return Match{OwnerGID: &id} }
func not(m Match) Match           { m.Not = true; return m }
func host(a string) netip.Prefix {
	p := netip.MustParseAddr(a)
	return netip.PrefixFrom(p, p.BitLen())
}

// Rules decides; it touches nothing.
func Rules(c Config) Plan {
	return Plan{Chains: []Chain{
		{Name: "inbound", Hook: Prerouting, Rules: inbound(c)},
		{Name: "outbound", Hook: Output, Rules: outbound(c)},
	}}
}

func inbound(c Config) []Rule {
	var out []Rule
	for _, i := range c.ExcludeInterfaces {
		out = append(out, Rule{Why: "excluded interface", Match: []Match{inLink(i)}})
	}
	if !c.Inbound.All {
		if len(c.Inbound.List) > 0 {
			out = append(out, Rule{Why: "included ports", Match: []Match{ports(c.Inbound.List...)}, Redirect: c.InboundPort})
		}
		return out
	}
	own := append([]uint16{statusPort, healthPort, metricsPort}, c.ExcludeInbound...)
	slices.Sort(own)
	return append(out,
		Rule{Why: "ports of the agent and excluded ones", Match: []Match{ports(slices.Compact(own)...)}},
		Rule{Why: "everything else that is TCP", Match: []Match{tcp()}, Redirect: c.InboundPort},
	)
}

func outbound(c Config) []Rule {
	var out []Rule
	for _, i := range c.ExcludeInterfaces {
		out = append(out, Rule{Why: "excluded interface", Match: []Match{outLink(i)}})
	}
	if len(c.ExcludeOutbound) > 0 {
		out = append(out, Rule{Why: "excluded ports", Match: []Match{ports(c.ExcludeOutbound...)}})
	}
	out = append(out, loopback(c)...)
	for _, p := range c.ExcludeRanges {
		out = append(out, Rule{Why: "excluded range", Match: []Match{dest(p)}})
	}
	for _, d := range c.Exclude {
		out = append(out, Rule{Why: "excluded range on these ports", Match: []Match{dest(d.Range), ports(d.Ports...)}})
	}
	return append(out, captured(c)...)
}

// loopback keeps the proxy out of its own way. The order is the meaning: what the
// proxy hands to the application passes first; then the proxy's connections to
// this very pod go through its inbound side; then all else of the proxy, and all
// that the application says to itself, passes. Owner group follows owner user,
// as either may be all that a container keeps.
func loopback(c Config) []Rule {
	v4, v6 := host("127.0.0.1"), host("::1")
	out := []Rule{
		{Why: "handed to the application", Match: []Match{outLink("lo"), source(host("127.0.0.6"))}},
		{Why: "handed to the application", Match: []Match{outLink("lo"), source(host("::6"))}},
	}
	for _, owner := range []Match{uid(c.UID), gid(c.GID)} {
		out = append(out,
			Rule{Why: "the application calls its own pod through the proxy", Match: []Match{outLink("lo"), owner, not(dest(v4)), tcp()}, Redirect: c.InboundPort},
			Rule{Why: "the application calls its own pod through the proxy", Match: []Match{outLink("lo"), owner, not(dest(v6)), tcp()}, Redirect: c.InboundPort},
			Rule{Why: "the application talks to itself", Match: []Match{outLink("lo"), not(owner)}},
			Rule{Why: "the proxy's own connections", Match: []Match{owner}},
		)
	}
	return append(out,
		Rule{Why: "meant for this pod alone", Match: []Match{dest(v4)}},
		Rule{Why: "meant for this pod alone", Match: []Match{dest(v6)}},
	)
}

func captured(c Config) []Rule {
	if c.Include.All || c.Outbound.All {
		return []Rule{{Why: "everything else that is TCP", Match: []Match{tcp()}, Redirect: c.OutboundPort}}
	}
	var out []Rule
	if len(c.Outbound.List) > 0 {
		out = append(out, Rule{Why: "included ports", Match: []Match{ports(c.Outbound.List...)}, Redirect: c.OutboundPort})
	}
	for _, p := range c.Include.List {
		out = append(out, Rule{Why: "included range", Match: []Match{dest(p), tcp()}, Redirect: c.OutboundPort})
	}
	return out
}
