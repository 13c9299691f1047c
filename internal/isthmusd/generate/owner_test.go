// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ingest"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

func TestResourcesNameTheirOwners(t *testing.T) {
	t.Parallel()
	snap, err := ingest.Load([]byte(routedService+`---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec: {host: web, trafficPolicy: {connectionPool: {http: {maxRetries: 1}}}}
`), topology.Config{})
	if err != nil {
		t.Fatal(err)
	}
	const of = "/apis/networking.istio.io/v1/namespaces/shop/"
	apart := shopSidecar()
	apart.HostsApart = true
	whole, alone := generateAll(t, snap, shopSidecar()), generateAll(t, snap, apart)
	for name, tc := range map[string]struct {
		made resources
		typ  resource.Type
		want []string
	}{
		"outbound|80||web.shop.svc.cluster.local": {whole, resource.Cluster, []string{of + "destination-rule/web"}},
		"BlackHoleCluster":                        {whole, resource.Cluster, nil},
		"80":                                      {whole, resource.Route, []string{of + "virtual-service/web"}},
		"vhds.80/web.shop.svc.cluster.local":      {alone, resource.VirtualHost, []string{of + "virtual-service/web"}},
		"virtualOutbound":                         {whole, resource.Listener, nil},
	} {
		m := tc.made[tc.typ][name]
		if m == nil {
			t.Errorf("there is no %s", name)
			continue
		}
		body, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tc.want, Owners(&resource.Resource{Type: tc.typ, Name: name, Body: body})); diff != "" {
			t.Errorf("owners of %s (-want +got):\n%s", name, diff)
		}
	}
	if got := Owners(&resource.Resource{Type: resource.Cluster, Body: []byte("no message")}); got != nil {
		t.Errorf("owners of what is no message: %v", got)
	}
}
