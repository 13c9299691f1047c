// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package intercept

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRules(t *testing.T) {
	t.Parallel()
	const (
		rest   = "meta l4proto tcp counter redirect to :15001"
		agents = "tcp dport { 15020, 15021, 15090 } counter return"
	)
	lo := []string{
		"oifname \"lo\" ip saddr 127.0.0.6 counter return",
		"oifname \"lo\" ip6 saddr ::6 counter return",
		"oifname \"lo\" meta skuid 1337 ip daddr != 127.0.0.1 meta l4proto tcp counter redirect to :15006",
		"oifname \"lo\" meta skuid 1337 ip6 daddr != ::1 meta l4proto tcp counter redirect to :15006",
		"oifname \"lo\" meta skuid != 1337 counter return",
		"meta skuid 1337 counter return",
		"oifname \"lo\" meta skgid 1337 ip daddr != 127.0.0.1 meta l4proto tcp counter redirect to :15006",
		"oifname \"lo\" meta skgid 1337 ip6 daddr != ::1 meta l4proto tcp counter redirect to :15006",
		"oifname \"lo\" meta skgid != 1337 counter return",
		"meta skgid 1337 counter return",
		"ip daddr 127.0.0.1 counter return",
		"ip6 daddr ::1 counter return",
	}
	tests := map[string]struct {
		change                    func(*Config)
		wantInbound, wantOutbound []string
	}{
		"everything, as an injected pod without annotations": {
			change:       func(*Config) {},
			wantInbound:  []string{agents, "meta l4proto tcp counter redirect to :15006"},
			wantOutbound: append(lo[:len(lo):len(lo)], rest),
		},
		"listed inbound ports leave the rest alone, exclusions included": {
			change: func(c *Config) {
				c.Inbound = Ports{List: []uint16{80, 8080}}
				c.ExcludeInbound = []uint16{80}
			},
			wantInbound:  []string{"tcp dport { 80, 8080 } counter redirect to :15006"},
			wantOutbound: append(lo[:len(lo):len(lo)], rest),
		},
		"nothing inbound": {
			change:       func(c *Config) { c.Inbound = Ports{} },
			wantOutbound: append(lo[:len(lo):len(lo)], rest),
		},
		"excluded ports and ranges come before capture": {
			change: func(c *Config) {
				c.ExcludeInbound = []uint16{22}
				c.ExcludeOutbound = []uint16{3306}
				c.ExcludeRanges = prefixes("10.0.0.0/8", "fd00::/8")
				c.Exclude = []Destination{{Range: netip.MustParsePrefix("192.0.2.1/32"), Ports: []uint16{443, 8443}}}
				c.ExcludeInterfaces = []string{"net1"}
			},
			wantInbound: []string{
				"iifname \"net1\" counter return",
				"tcp dport { 22, 15020, 15021, 15090 } counter return",
				"meta l4proto tcp counter redirect to :15006",
			},
			wantOutbound: append(append([]string{
				"oifname \"net1\" counter return",
				"tcp dport 3306 counter return",
			}, lo...),
				"ip daddr 10.0.0.0/8 counter return",
				"ip6 daddr fd00::/8 counter return",
				"ip daddr 192.0.2.1 tcp dport { 443, 8443 } counter return",
				rest,
			),
		},
		"listed ranges and ports only": {
			change: func(c *Config) {
				c.Outbound = Ports{List: []uint16{443}}
				c.Include = Ranges{List: prefixes("10.96.0.0/12", "fd00:96::/108")}
			},
			wantInbound: []string{agents, "meta l4proto tcp counter redirect to :15006"},
			wantOutbound: append(lo[:len(lo):len(lo)],
				"tcp dport 443 counter redirect to :15001",
				"ip daddr 10.96.0.0/12 meta l4proto tcp counter redirect to :15001",
				"ip6 daddr fd00:96::/108 meta l4proto tcp counter redirect to :15001",
			),
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := Default()
			tt.change(&c)
			p := Rules(c)
			if d := cmp.Diff(tt.wantInbound, bare(p.Chains[0])); d != "" {
				t.Errorf("inbound (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.wantOutbound, bare(p.Chains[1])); d != "" {
				t.Errorf("outbound (-want +got):\n%s", d)
			}
		})
	}
}

// bare prints the rules of a chain without their comments.
func bare(c Chain) []string {
	var out []string
	for _, r := range c.Rules {
		r.Why = ""
		out = append(out, r.String())
	}
	return out
}

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func TestParse(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		parse   func() (any, error)
		want    any
		wantErr string
	}{
		"star is every port":        {parse: func() (any, error) { return ParsePorts(" * ") }, want: Ports{All: true}},
		"empty is no port":          {parse: func() (any, error) { return ParsePorts("") }, want: Ports{}},
		"ports are sorted":          {parse: func() (any, error) { return ParsePorts("443, 80,80") }, want: Ports{List: []uint16{80, 443}}},
		"port out of range":         {parse: func() (any, error) { return ParsePorts("70000") }, wantErr: "is no port"},
		"ranges of both families":   {parse: func() (any, error) { return ParseRangeList("10.1.2.3/8,fd00::1") }, want: prefixes("10.0.0.0/8", "fd00::1/128")},
		"a name is no range":        {parse: func() (any, error) { return ParseRanges("example.com") }, wantErr: "neither CIDR nor address"},
		"destination over IPv6":     {parse: func() (any, error) { return ParseDestination("fd00::/8:80,443") }, want: Destination{Range: netip.MustParsePrefix("fd00::/8"), Ports: []uint16{80, 443}}},
		"destination without ports": {parse: func() (any, error) { return ParseDestination("10.0.0.0/8") }, wantErr: "not of the form"},
		"destination with no port":  {parse: func() (any, error) { return ParseDestination("10.0.0.0/8:") }, wantErr: "names no port"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := tt.parse()
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("error %v, want one with %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	bad := map[string]func(*Config){
		"proxy as root":                 func(c *Config) { c.UID = 0 },
		"both ports the same":           func(c *Config) { c.InboundPort = c.OutboundPort },
		"interface name with a quote":   func(c *Config) { c.ExcludeInterfaces = []string{"a\"b"} },
		"exclusion that names no ports": func(c *Config) { c.Exclude = []Destination{{Range: netip.MustParsePrefix("10.0.0.0/8")}} },
	}
	for name, change := range bad {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := Default()
			change(&c)
			if c.Validate() == nil {
				t.Error("accepted")
			}
		})
	}
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
}

func FuzzParseDestination(f *testing.F) {
	f.Add("10.0.0.0/8:80,443")
	f.Add("fd00::/8:1")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDestination(s)
		if err != nil {
			return
		}
		if !d.Range.IsValid() || len(d.Ports) == 0 {
			t.Errorf("%q gave %+v", s, d)
		}
	})
}
