// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"cmp"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// TestEveryClusterHasItsEndpoints, be it none: Envoy holds a cluster back until it
// hears of them, and in the state of the world nothing says that they do not exist.
func TestEveryClusterHasItsEndpoints(t *testing.T) {
	t.Parallel()
	for name, tc := range cases(t) {
		for proxy, p := range tc.proxies {
			t.Run(name+"/"+proxy, func(t *testing.T) {
				t.Parallel()
				rs := generateAll(t, tc.snap, p)
				for name, m := range rs[resource.Cluster] {
					c := m.(*clusterv3.Cluster)
					if c.GetType() != clusterv3.Cluster_EDS {
						continue
					}
					if of := cmp.Or(c.GetEdsClusterConfig().GetServiceName(), name); rs[resource.Endpoint][of] == nil {
						t.Errorf("cluster %s has no endpoints %s", name, of)
					}
				}
			})
		}
	}
}
