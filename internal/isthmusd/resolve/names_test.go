// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCovers(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		pattern, host string
		want          bool
	}{
		"itself":                            {"a.example.com", "a.example.com", true},
		"everything":                        {"*", "a", true},
		"a wildcard covers what is below":   {"*.example.com", "a.b.example.com", true},
		"a wildcard does not cover its top": {"*.example.com", "example.com", false},
		"nor the dot alone":                 {"*.example.com", ".example.com", false},
		"a narrower wildcard":               {"*.com", "*.example.com", true},
		"a wider wildcard":                  {"*.example.com", "*.com", false},
		"another host":                      {"a.example.com", "b.example.com", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := covers(tc.pattern, tc.host); got != tc.want {
				t.Errorf("covers(%q, %q) = %v", tc.pattern, tc.host, got)
			}
		})
	}
}

func TestRetryOn(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		in, on string
		codes  []uint32
	}{
		"conditions alone":            {"5xx,reset", "5xx,reset", nil},
		"codes are put in their list": {"503, connect-failure ,504", "connect-failure,retriable-status-codes", []uint32{503, 504}},
		"not every number is a code":  {"42", "42", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			on, codes := retryOn(tc.in)
			if diff := cmp.Diff(tc.on, on) + cmp.Diff(tc.codes, codes); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{
		"outbound|80||a.b", "outbound|80|v1|a|b", "inbound|80||", "0.0.0.0_80", "::_80", "outbound_.80_._.a", "http.80", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if k, ok := parseOutbound(s); ok {
			if again, _ := parseOutbound(outboundCluster(k.port, k.subset, k.host)); again != k {
				t.Errorf("%q is read as %v, then as %v", s, k, again)
			}
		}
		if n, ok := parseInbound(s); ok {
			if again, _ := parseInbound(inboundCluster(n)); again != n {
				t.Errorf("%q is read as %d, then as %d", s, n, again)
			}
		}
		if ip, port, ok := parseListener(s); ok {
			if a, p, _ := parseListener(listenerName(ip, port)); a != ip || p != port {
				t.Errorf("%q is read as %s %d, then as %s %d", s, ip, port, a, p)
			}
		}
		hostOfKey(s)
		fullName(s, "ns", "cluster.local")
	})
}
