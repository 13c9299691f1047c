// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"sigs.k8s.io/yaml"
)

func TestFilterChainMatch(t *testing.T) {
	t.Parallel()
	conn := connection{
		source: netip.MustParseAddrPort("10.0.0.1:4000"), destination: netip.MustParseAddrPort("10.1.2.3:80"),
		serverName: "www.example.com", transport: "tls", protocols: []string{"h2", "http/1.1"},
	}
	for name, tc := range map[string]struct {
		chains []string
		conn   func(*connection)
		want   string
	}{
		"no chain at all":                    {},
		"a chain that asks for nothing":      {chains: []string{"{}"}, want: "0"},
		"a port beats none":                  {chains: []string{"{}", "{destination_port: 80}"}, want: "1"},
		"another port is none":               {chains: []string{"{destination_port: 81}"}},
		"the port comes before the server":   {chains: []string{"{server_names: [www.example.com]}", "{destination_port: 80}"}, want: "1"},
		"there is no way back from the port": {chains: []string{"{}", "{destination_port: 80, transport_protocol: raw_buffer}"}},
		"the longest range": {chains: []string{
			"{prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}", "{prefix_ranges: [{address_prefix: 10.1.2.0, prefix_len: 24}]}",
			"{prefix_ranges: [{address_prefix: 10.1.0.0, prefix_len: 16}]}",
		}, want: "1"},
		"there is no way back from the range": {chains: []string{
			"{prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}", "{prefix_ranges: [{address_prefix: 10.1.2.3, prefix_len: 32}], server_names: [other]}",
		}},
		"the name itself before a wildcard":           {chains: []string{`{server_names: ["*.example.com"]}`, "{server_names: [www.example.com]}"}, want: "1"},
		"the longest wildcard":                        {chains: []string{`{server_names: ["*.com"]}`, `{server_names: ["*.example.com"]}`, "{}"}, want: "1"},
		"a wildcard is for what is below":             {chains: []string{`{server_names: ["*.www.example.com"]}`}},
		"there is no way back from the name":          {chains: []string{`{server_names: ["*.com"]}`, `{server_names: ["*.example.com"], application_protocols: [other]}`}},
		"without a name, chains without":              {chains: []string{`{server_names: ["*.com"]}`, "{}"}, conn: func(c *connection) { c.serverName = "" }, want: "1"},
		"the transport before the protocols":          {chains: []string{"{application_protocols: [h2]}", "{transport_protocol: tls}"}, want: "1"},
		"protocols in the order of the client":        {chains: []string{"{application_protocols: [http/1.1]}", "{application_protocols: [h2]}", "{}"}, want: "1"},
		"no protocol of the client's":                 {chains: []string{"{application_protocols: [h2c]}", "{}"}, want: "1"},
		"directly connected source":                   {chains: []string{"{}", "{direct_source_prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 24}]}"}, want: "1"},
		"a client elsewhere is external":              {chains: []string{"{source_type: SAME_IP_OR_LOOPBACK}", "{source_type: EXTERNAL}"}, want: "1"},
		"a client of the same address is local":       {chains: []string{"{source_type: SAME_IP_OR_LOOPBACK}", "{source_type: EXTERNAL}"}, conn: func(c *connection) { c.source = c.destination }, want: "0"},
		"the source's range, then its port":           {chains: []string{"{source_prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}", "{source_ports: [4000]}", "{}"}, want: "0"},
		"a source port beats none":                    {chains: []string{"{}", "{source_ports: [1, 4000]}"}, want: "1"},
		"an internal connection has no port to match": {chains: []string{"{destination_port: 80}", "{}"}, conn: func(c *connection) { c.internal, c.destination = true, netip.AddrPort{} }, want: "1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var chains []*listenerv3.FilterChain
			for i, text := range tc.chains {
				raw, err := yaml.YAMLToJSON([]byte(text))
				if err != nil {
					t.Fatal(err)
				}
				m := &listenerv3.FilterChainMatch{}
				if err := protojson.Unmarshal(raw, m); err != nil {
					t.Fatal(err)
				}
				chains = append(chains, &listenerv3.FilterChain{Name: fmt.Sprint(i), FilterChainMatch: m})
			}
			c := conn
			if tc.conn != nil {
				tc.conn(&c)
			}
			if got := findChain(chains, c, func(string, ...any) {}).GetName(); got != tc.want {
				t.Errorf("chain %q, want %q", got, tc.want)
			}
		})
	}
}

// FuzzFilterChainMatch holds the search against the other way to say the same:
// chains lie in a tree of the values that they ask for, a level for each
// criterion, and the search goes down to the first value that is there.
func FuzzFilterChainMatch(f *testing.F) {
	for seed := range uint64(2000) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		chains := randomChains(r)
		for range 8 {
			c := randomConnection(r)
			want := descend(chains, c, 0)
			if got := findChain(chains, c, func(string, ...any) {}).GetName(); got != want {
				t.Fatalf("connection %+v: chain %q, want %q of\n%v", c, got, want, chains)
			}
		}
	})
}

func oneOf[T any](r *rand.Rand, values ...T) T { return values[r.IntN(len(values))] }

// some picks a few values, often none.
func some[T any](r *rand.Rand, values ...T) []T {
	if r.IntN(2) == 0 {
		return nil
	}
	r.Shuffle(len(values), func(i, j int) { values[i], values[j] = values[j], values[i] })
	return values[:1+r.IntN(2)]
}

func someRanges(r *rand.Rand) []*corev3.CidrRange {
	var out []*corev3.CidrRange
	for _, p := range some(r, "10.0.0.0/8", "10.1.0.0/16", "10.1.1.1/32", "127.0.0.0/8") {
		n := netip.MustParsePrefix(p)
		out = append(out, &corev3.CidrRange{AddressPrefix: n.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(n.Bits()))})
	}
	return out
}

// randomChains are some that Envoy would accept: no two ask for the same.
func randomChains(r *rand.Rand) []*listenerv3.FilterChain {
	var out []*listenerv3.FilterChain
	taken := map[string]bool{}
	for i := range 1 + r.IntN(12) {
		m := &listenerv3.FilterChainMatch{
			PrefixRanges: someRanges(r), ServerNames: some(r, "a.b.com", "*.b.com", "*.com", "b.com"),
			TransportProtocol: oneOf(r, "", "tls", "raw_buffer"), ApplicationProtocols: some(r, "h2", "http/1.1", "istio"),
			DirectSourcePrefixRanges: someRanges(r), SourcePrefixRanges: someRanges(r),
			SourceType:  oneOf(r, listenerv3.FilterChainMatch_ANY, listenerv3.FilterChainMatch_EXTERNAL, listenerv3.FilterChainMatch_SAME_IP_OR_LOOPBACK),
			SourcePorts: some(r, uint32(1), uint32(2)),
		}
		if n := r.IntN(3); n > 0 {
			m.DestinationPort = wrapperspb.UInt32(uint32(79 + n))
		}
		paths := everyPath(m)
		if slices.ContainsFunc(paths, func(p string) bool { return taken[p] }) {
			continue
		}
		for _, p := range paths {
			taken[p] = true
		}
		out = append(out, &listenerv3.FilterChain{Name: fmt.Sprint(i), FilterChainMatch: m})
	}
	return out
}

func randomConnection(r *rand.Rand) connection {
	ip := func() netip.Addr {
		return netip.MustParseAddr(oneOf(r, "10.1.1.1", "10.1.2.2", "10.9.9.9", "127.0.0.1", "9.9.9.9"))
	}
	c := connection{
		source:      netip.AddrPortFrom(ip(), uint16(1+r.IntN(3))),
		destination: netip.AddrPortFrom(ip(), uint16(80+r.IntN(3))),
		transport:   oneOf(r, "tls", "raw_buffer"),
	}
	if c.transport == "tls" {
		c.serverName = oneOf(r, "", "a.b.com", "x.b.com", "b.com", "c.com", "org")
		c.protocols = some(r, "h2", "http/1.1", "istio")
	}
	return c
}

// asked lists the values that a chain asks for at a level; "" is none.
func asked(m *listenerv3.FilterChainMatch, level int) []string {
	ranges := func(rs []*corev3.CidrRange) (out []string) {
		for _, c := range rs {
			out = append(out, fmt.Sprintf("%s/%d", c.AddressPrefix, c.PrefixLen.GetValue()))
		}
		return out
	}
	var out []string
	switch level {
	case 0:
		if p := m.DestinationPort; p != nil {
			out = []string{fmt.Sprint(p.Value)}
		}
	case 1:
		out = ranges(m.PrefixRanges)
	case 2:
		out = m.ServerNames
	case 3:
		out = some1(m.TransportProtocol)
	case 4:
		out = m.ApplicationProtocols
	case 5:
		out = ranges(m.DirectSourcePrefixRanges)
	case 6:
		if m.SourceType != listenerv3.FilterChainMatch_ANY {
			out = []string{m.SourceType.String()}
		}
	case 7:
		out = ranges(m.SourcePrefixRanges)
	case 8:
		for _, p := range m.SourcePorts {
			out = append(out, fmt.Sprint(p))
		}
	}
	if len(out) == 0 {
		return []string{""}
	}
	return out
}

func some1(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

const levels = 9

func everyPath(m *listenerv3.FilterChainMatch) []string {
	paths := []string{""}
	for level := range levels {
		var next []string
		for _, p := range paths {
			for _, v := range asked(m, level) {
				next = append(next, p+"|"+v)
			}
		}
		paths = next
	}
	return paths
}

// offered lists the values at a level that a connection would take, best first.
func offered(c connection, level int) []string {
	ranges := func(ip netip.Addr) (out []string) {
		for bits := 32; bits > 0; bits-- {
			p, _ := ip.Prefix(bits)
			out = append(out, p.String())
		}
		return out
	}
	var out []string
	switch level {
	case 0:
		out = []string{fmt.Sprint(c.destination.Port())}
	case 1:
		out = ranges(c.destination.Addr())
	case 2:
		out = append(out, c.serverName)
		for rest := c.serverName; ; {
			_, after, ok := strings.Cut(rest, ".")
			if !ok {
				break
			}
			out, rest = append(out, "*."+after), after
		}
	case 3:
		out = []string{c.transport}
	case 4:
		out = c.protocols
	case 5, 7:
		out = ranges(c.source.Addr())
	case 6:
		local := c.source.Addr() == c.destination.Addr() || c.source.Addr().String() == "127.0.0.1"
		out = []string{map[bool]string{true: "SAME_IP_OR_LOOPBACK", false: "EXTERNAL"}[local]}
	case 8:
		out = []string{fmt.Sprint(c.source.Port())}
	}
	return append(slices.Clone(out), "")
}

func descend(chains []*listenerv3.FilterChain, c connection, level int) string {
	if level == levels {
		return chains[0].Name
	}
	branches := map[string][]*listenerv3.FilterChain{}
	for _, ch := range chains {
		for _, v := range asked(ch.FilterChainMatch, level) {
			branches[v] = append(branches[v], ch)
		}
	}
	for _, v := range offered(c, level) {
		if b := branches[v]; len(b) > 0 {
			return descend(b, c, level+1)
		}
	}
	return ""
}
