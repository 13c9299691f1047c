// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"fmt"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
)

// maxServerName is the longest server name that there can be in a handshake.
const maxServerName = 255

// overlaps finds what the generated rules do not know of and Envoy refuses whole:
// chains that match the same connections, and domains of two virtual hosts.
func overlaps(m proto.Message) error {
	switch m := m.(type) {
	case *listener.Listener:
		return overlappingChains(m)
	case *route.RouteConfiguration:
		return overlappingHosts(m)
	}
	return nil
}

func overlappingChains(l *listener.Listener) error {
	if l.FilterChainMatcher != nil {
		return nil // which chooses by name
	}
	taken := map[string]string{}
	for _, c := range l.FilterChains {
		for _, name := range c.GetFilterChainMatch().GetServerNames() {
			if len(name) > maxServerName {
				return fmt.Errorf("filter chain %q: a server name of %d bytes", c.Name, len(name))
			}
		}
		for _, key := range conditions(c.GetFilterChainMatch()) {
			if other, ok := taken[key]; ok {
				return fmt.Errorf("filter chains %q and %q match the same connections: %s", other, c.Name, key)
			}
			taken[key] = c.Name
		}
	}
	return nil
}

// conditions writes a match out as Envoy does: once for each combination of the
// values that it lists.
func conditions(m *listener.FilterChainMatch) []string {
	out := []string{fmt.Sprint(m.GetDestinationPort().GetValue(), m.GetSourceType())}
	var ports []string
	for _, p := range m.GetSourcePorts() {
		ports = append(ports, fmt.Sprint(p))
	}
	for _, values := range [][]string{
		ranges(m.GetPrefixRanges()), m.GetServerNames(), {m.GetTransportProtocol()}, m.GetApplicationProtocols(),
		ranges(m.GetDirectSourcePrefixRanges()), ranges(m.GetSourcePrefixRanges()), ports,
	} {
		if len(values) == 0 {
			values = []string{""}
		}
		var next []string
		for _, prefix := range out {
			for _, v := range values {
				next = append(next, prefix+" "+strings.ToLower(v))
			}
		}
		out = next
	}
	return out
}

func ranges(list []*core.CidrRange) []string {
	var out []string
	for _, r := range list {
		out = append(out, fmt.Sprintf("%s/%d", r.AddressPrefix, r.GetPrefixLen().GetValue()))
	}
	return out
}

func overlappingHosts(r *route.RouteConfiguration) error {
	taken := map[string]string{}
	names := map[string]bool{}
	for _, h := range r.VirtualHosts {
		if names[h.Name] {
			return fmt.Errorf("two virtual hosts are called %q", h.Name)
		}
		names[h.Name] = true
		for _, d := range h.Domains {
			d = strings.ToLower(d)
			if other, ok := taken[d]; ok {
				return fmt.Errorf("virtual hosts %q and %q have the domain %q", other, h.Name, d)
			}
			taken[d] = h.Name
		}
	}
	return nil
}
