// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"strings"
	"testing"

	matcher "github.com/cncf/xds/go/xds/type/matcher/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func chains(ms ...*listener.FilterChainMatch) *listener.Listener {
	l := &listener.Listener{}
	for i, m := range ms {
		l.FilterChains = append(l.FilterChains, &listener.FilterChain{Name: string(rune('a' + i)), FilterChainMatch: m})
	}
	return l
}

func hosts(domains ...string) *route.RouteConfiguration {
	r := &route.RouteConfiguration{}
	for _, d := range domains {
		r.VirtualHosts = append(r.VirtualHosts, &route.VirtualHost{Name: d, Domains: []string{d}})
	}
	return r
}

func network(ip string, bits uint32) []*core.CidrRange {
	return []*core.CidrRange{{AddressPrefix: ip, PrefixLen: wrapperspb.UInt32(bits)}}
}

func TestOverlaps(t *testing.T) {
	t.Parallel()
	type match = listener.FilterChainMatch
	byName := chains(nil, nil)
	byName.FilterChainMatcher = &matcher.Matcher{}
	tests := map[string]struct {
		message proto.Message
		want    string // in the error; "" for none
	}{
		"chains for two names":                   {chains(&match{ServerNames: []string{"a"}}, &match{ServerNames: []string{"b"}}), ""},
		"chains with a name in common":           {chains(&match{ServerNames: []string{"a", "b"}}, &match{ServerNames: []string{"c", "B"}}), `"a" and "b" match the same`},
		"a name, and the same name on one port":  {chains(&match{ServerNames: []string{"a"}}, &match{ServerNames: []string{"a"}, DestinationPort: wrapperspb.UInt32(1)}), ""},
		"a range within a range":                 {chains(&match{PrefixRanges: network("10.0.0.0", 8)}, &match{PrefixRanges: network("10.0.0.0", 9)}), ""},
		"the same range twice":                   {chains(&match{PrefixRanges: network("10.0.0.0", 8)}, &match{PrefixRanges: network("10.0.0.0", 8)}), "match the same"},
		"two chains for everything":              {chains(nil, nil), "match the same"},
		"two chains for everything by a matcher": {byName, ""},
		"a server name that cannot be":           {chains(&match{ServerNames: []string{strings.Repeat("a", 256)}}), "256 bytes"},
		"hosts of two domains":                   {hosts("a", "b"), ""},
		"hosts of one domain in two spellings":   {hosts("a", "A"), `have the domain "a"`},
		"two hosts of one name":                  {hosts("a", "a"), `called "a"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := overlaps(tt.message)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}
