// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"slices"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// dnsEndpoints are the names behind a service that is resolved by DNS: its
// endpoints, or else its host. They come from the object that declares the
// service, not from pods, so a cluster may hold them. Where endpoints are to be
// listed and none is usable, there is none.
func dnsEndpoints(v *snapshot.View, d destination, in *bounds) []ir.Locality {
	b := newEndpointBuilder(v, d)
	b.bounds = in
	if d.svc.ExternalName != "" {
		if b.sharedProxy && proxyItself(d.svc.ExternalName) {
			return nil
		}
		return single(d.svc.ExternalName, d.key.port)
	}
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
	listed := d.svc.Resolution == model.ClientSideLB || b.refused
	if len(out) > 0 || listed || isWildcard(d.svc.Host) || b.sharedProxy && proxyItself(d.svc.Host) {
		return out
	}
	port := endpointPort(model.Endpoint{}, d.port)
	if !in.endpoint(model.Endpoint{Address: d.svc.Host}, port) {
		return nil
	}
	return single(d.svc.Host, port)
}

func single(host string, port uint32) []ir.Locality {
	return []ir.Locality{{Endpoints: []ir.Endpoint{{Address: host, Port: port, Weight: 1}}}}
}
