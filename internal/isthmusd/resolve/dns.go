// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// dnsEndpoints are the names behind a service that is resolved by DNS: its
// endpoints, or else its host. They come from the object that declares the
// service, not from pods, so a cluster may hold them.
func dnsEndpoints(v *snapshot.View, d destination) []ir.Locality {
	if d.svc.ExternalName != "" {
		return single(d.svc.ExternalName, d.key.port)
	}
	b := newEndpointBuilder(v, d)
	for _, e := range v.Endpoints(d.svc.ServiceKey) {
		b.add(e)
	}
	out := b.localities()
	for i := range out {
		out[i].Endpoints = slices.Clone(out[i].Endpoints)
		for j := range out[i].Endpoints {
			out[i].Endpoints[j].TLSMode = ""
		}
	}
	if len(out) > 0 || strings.HasPrefix(d.svc.Host, "*") {
		return out
	}
	return single(d.svc.Host, endpointPort(model.Endpoint{}, d.port))
}

func single(host string, port uint32) []ir.Locality {
	return []ir.Locality{{Endpoints: []ir.Endpoint{{Address: host, Port: port, Weight: 1}}}}
}
