// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
)

// Owners names the users' objects that a resource was made of, each once and sorted,
// as the metadata say that Istio's tools read. Listeners say nothing: a note there
// would cut connections when it changes.
func Owners(m proto.Message) []string {
	var out []string
	add := func(md *corev3.Metadata) {
		if c := md.GetFilterMetadata()[istioKey].GetFields()["config"].GetStringValue(); c != "" {
			out = append(out, c)
		}
	}
	host := func(h *routev3.VirtualHost) {
		for _, r := range h.GetRoutes() {
			add(r.GetMetadata())
		}
	}
	switch m := m.(type) {
	case *clusterv3.Cluster:
		add(m.GetMetadata())
	case *routev3.VirtualHost:
		host(m)
	case *routev3.RouteConfiguration:
		for _, h := range m.GetVirtualHosts() {
			host(h)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
