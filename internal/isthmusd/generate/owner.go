// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package generate

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/envoy"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// Owners names the users' objects that a finished resource was made of; none where it
// does not say.
func Owners(r *resource.Resource) []string {
	var m proto.Message
	switch r.Type {
	case resource.Cluster:
		m = &clusterv3.Cluster{}
	case resource.Route:
		m = &routev3.RouteConfiguration{}
	case resource.VirtualHost:
		m = &routev3.VirtualHost{}
	default:
		return nil
	}
	if proto.Unmarshal(r.Body, m) != nil {
		return nil // Somebody else's bytes.
	}
	return envoy.Owners(m)
}
