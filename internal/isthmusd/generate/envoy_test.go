// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/test/envoys"
)

// TestEnvoyAccepts feeds everything that a case generates to a real Envoy.
func TestEnvoyAccepts(t *testing.T) {
	t.Parallel()
	for name, tc := range cases(t) {
		for proxy, p := range tc.proxies {
			t.Run(name+"/"+proxy, func(t *testing.T) {
				t.Parallel()
				envoys.Accept(t, envoys.Resources(generateAll(t, tc.snap, p)))
			})
		}
	}
}
