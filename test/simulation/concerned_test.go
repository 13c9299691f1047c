// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"net/netip"
	"strings"
	"testing"
)

func TestConcerned(t *testing.T) {
	t.Parallel()
	c := configFrom(t, sidecar)
	web := func(host, path string) Request {
		return Request{
			Source: netip.MustParseAddrPort("10.9.0.1:4000"), Destination: netip.MustParseAddrPort("10.0.0.1:80"),
			Protocol: HTTP1, Authority: host, Path: path,
		}.Outbound()
	}
	for name, tc := range map[string]struct {
		req          Request
		want, absent []string
	}{
		"only what was chosen": {
			web("b", "/broken"),
			[]string{"name: 0.0.0.0_80", "name: web", "name: b\n", "name: broken", "name: v1"},
			[]string{"name: inbound", "name: split", "name: bytes", "name: canary", "name: secure", "name: v2"},
		},
		"the domains where no virtual host was found": {
			web("c", "/"),
			[]string{"name: web", "name: b\n", "name: secure"},
			[]string{"name: canary", "# Cluster"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := Evaluate(c, tc.req)
			got := out[len(out)-1].Concerned()
			for _, want := range tc.want {
				if !strings.Contains(got, want) {
					t.Errorf("lacks %q", want)
				}
			}
			for _, absent := range tc.absent {
				if strings.Contains(got, absent) {
					t.Errorf("has %q", absent)
				}
			}
			if t.Failed() {
				t.Log(got)
			}
		})
	}
}
