// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ingest"
)

func bytesEntry(name, namespace string, created int, more string) string {
	return fmt.Sprintf(`
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %[1]s, namespace: %[2]s, creationTimestamp: "2026-01-01T00:00:%02[3]dZ"}
spec: {hosts: [%[1]s.example.com], location: MESH_EXTERNAL, resolution: DNS, %[4]s ports: [{number: 5432, name: tcp, protocol: TCP}]}
`, name, namespace, created, more)
}

func credential(present string) string {
	return bytesEntry("db", "shop", 1, "") + `
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: db, namespace: shop}
spec: {host: db.example.com, trafficPolicy: {tls: {mode: SIMPLE, credentialName: outside}}}
---
{apiVersion: v1, kind: Secret, metadata: {name: outside, namespace: ` + present + `}, stringData: {ca.crt: not a certificate}}
`
}

func TestProblems(t *testing.T) {
	t.Parallel()
	const missing = "Secret shop/outside (ca.crt) is missing, not usable, or in a namespace of which isthmusd reads none: requests for db.example.com get 503"
	conflict := func(with string) string {
		return "PortConflict: ServiceEntry " + with + " has port 5432, and without addresses nothing tells their connections apart"
	}
	tests := map[string]struct {
		docs string
		want map[string]string
	}{
		"nothing is wrong":             {bytesEntry("a", "shop", 1, ""), map[string]string{}},
		"a credential that is missing": {credential("bank"), map[string]string{"DestinationRule shop/db": missing}},
		"a credential that is not one": {credential("shop"), map[string]string{"DestinationRule shop/db": missing}},
		"two entries for bytes of a port": {
			bytesEntry("young", "shop", 2, "") + bytesEntry("old", "shop", 1, ""),
			map[string]string{"ServiceEntry shop/young": conflict("shop/old")},
		},
		"one of them has an address": {
			bytesEntry("young", "shop", 2, "addresses: [192.0.2.1],") + bytesEntry("old", "shop", 1, ""), map[string]string{},
		},
		"the other is another tenant's": {
			bytesEntry("young", "shop", 2, "") + bytesEntry("old", "bank", 1, ""), map[string]string{},
		},
		"the other is the platform's": {
			bytesEntry("young", "shop", 2, "") + bytesEntry("old", "isthmus-system", 1, ""),
			map[string]string{"ServiceEntry shop/young": conflict("isthmus-system/old")},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := throughEgress()
			c.Namespace = "isthmus-system"
			snap, err := ingest.Load([]byte(egressService+tt.docs), c)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, Problems(snap)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
