// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

func TestVirtualHostByDomain(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		domains    []string
		host       string
		ignorePort bool
		want       string
	}{
		"the name itself":                        {domains: []string{"*", "*.example.com", "www.example.com"}, host: "www.example.com", want: "www.example.com"},
		"whatever its case":                      {domains: []string{"WWW.example.com"}, host: "www.EXAMPLE.com", want: "WWW.example.com"},
		"the longest suffix":                     {domains: []string{"*.com", "*.example.com", "*"}, host: "www.example.com", want: "*.example.com"},
		"a suffix before a longer prefix":        {domains: []string{"www.example.*", "*.com"}, host: "www.example.com", want: "*.com"},
		"the longest prefix":                     {domains: []string{"www.*", "www.example.*", "*"}, host: "www.example.com", want: "www.example.*"},
		"any":                                    {domains: []string{"*", "other"}, host: "www.example.com", want: "*"},
		"none":                                   {domains: []string{"other"}, host: "www.example.com"},
		"a star is no empty text":                {domains: []string{"*.example.com"}, host: ".example.com"},
		"a partial wildcard":                     {domains: []string{"*-bar.foo.com"}, host: "baz-bar.foo.com", want: "*-bar.foo.com"},
		"a port counts":                          {domains: []string{"b", "b:80"}, host: "b:80", want: "b:80"},
		"a port that does not count":             {domains: []string{"b", "b:80"}, host: "b:80", ignorePort: true, want: "b"},
		"a port of IPv6 that does not count":     {domains: []string{"[fd00::1]"}, host: "[fd00::1]:80", ignorePort: true, want: "[fd00::1]"},
		"an address of IPv6 that has no port":    {domains: []string{"[fd00::1]"}, host: "[fd00::1]", ignorePort: true, want: "[fd00::1]"},
		"no host at all is no host, not a \"*\"": {domains: []string{"*"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table := &routev3.RouteConfiguration{IgnorePortInHostMatching: tc.ignorePort}
			for _, d := range tc.domains {
				table.VirtualHosts = append(table.VirtualHosts, &routev3.VirtualHost{Name: d, Domains: []string{d}})
			}
			if _, got := findVirtualHost(table, Request{Authority: tc.host}); got != tc.want {
				t.Errorf("domain %q, want %q", got, tc.want)
			}
		})
	}
}

// FuzzVirtualHost holds the search against the four steps of the documentation,
// taken one after the other.
func FuzzVirtualHost(f *testing.F) {
	for seed := range uint64(500) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		word := func() string { return oneOf(r, "a", "b", "ab", "a.b", "b.a", "a.b.a") }
		table := &routev3.RouteConfiguration{}
		seen := map[string]bool{}
		for range r.IntN(10) {
			d := oneOf(r, "", "*", "*.") + word() + oneOf(r, "", "", ".*", "*")
			if strings.Count(d, "*") > 1 || seen[d] {
				continue
			}
			seen[d] = true
			table.VirtualHosts = append(table.VirtualHosts, &routev3.VirtualHost{Name: d, Domains: []string{d}})
		}
		if r.IntN(2) == 0 {
			table.VirtualHosts = append(table.VirtualHosts, &routev3.VirtualHost{Name: "*", Domains: []string{"*"}})
		}
		host := word()
		if _, got := findVirtualHost(table, Request{Authority: host}); got != bySteps(table, host) {
			t.Fatalf("host %q: domain %q, want %q of %v", host, got, bySteps(table, host), seen)
		}
	})
}

func bySteps(table *routev3.RouteConfiguration, host string) string {
	var domains []string
	for _, vh := range table.VirtualHosts {
		domains = append(domains, vh.Domains...)
	}
	slices.SortStableFunc(domains, func(a, b string) int { return len(b) - len(a) })
	for _, fits := range []func(string) bool{
		func(d string) bool { return d == host },
		func(d string) bool {
			return len(d) > 1 && d[0] == '*' && len(host) >= len(d) && strings.HasSuffix(host, d[1:])
		},
		func(d string) bool {
			n := len(d) - 1
			return n > 0 && d[n] == '*' && len(host) >= len(d) && strings.HasPrefix(host, d[:n])
		},
		func(d string) bool { return d == "*" },
	} {
		if i := slices.IndexFunc(domains, fits); i >= 0 {
			return domains[i]
		}
	}
	return ""
}

func TestChanceGoesEveryWay(t *testing.T) {
	t.Parallel()
	got := map[string]float64{}
	err := explore(func(d *dice) {
		s := fmt.Sprint(d.choose([]uint64{1, 0, 3}))
		if s == "2" {
			s += fmt.Sprint(d.choose([]uint64{1, 1}))
		}
		got[s] += d.share
	})
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]float64{"0": 0.25, "20": 0.375, "21": 0.375} {
		if got[k] != want {
			t.Errorf("%s has share %v, want %v", k, got[k], want)
		}
	}
	if len(got) != 3 {
		t.Errorf("got %v", got)
	}
}
