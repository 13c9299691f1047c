// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package generate

import "github.com/isthmus-mesh/isthmus/internal/isthmusd/resolve"

// generators is all that a proxy can get.
func generators() []generator {
	return []generator{
		clusters(resolve.Sidecar, resolve.SidecarClusters, resolve.SidecarCluster).with(resolve.SidecarOwnClusters),
		endpoints(resolve.Sidecar, resolve.Assignments, resolve.Assignment),
		listeners(resolve.Sidecar, resolve.SidecarListeners, resolve.SidecarListener).with(resolve.SidecarOwnListeners),
		routes(resolve.Sidecar, resolve.SidecarRoutes, resolve.SidecarRoute),

		clusters(resolve.Gateway, resolve.GatewayClusters, resolve.GatewayCluster),
		endpoints(resolve.Gateway, resolve.GatewayAssignments, resolve.Assignment),
		listeners(resolve.Gateway, resolve.GatewayListeners, resolve.GatewayListener),
		routes(resolve.Gateway, resolve.GatewayRoutes, resolve.GatewayRoute),
		secrets(resolve.Gateway, resolve.GatewaySecrets, resolve.GatewaySecret),

		clusters(resolve.Egress, resolve.EgressClusters, resolve.EgressCluster),
		listeners(resolve.Egress, resolve.EgressListeners, resolve.EgressListener),
		secrets(resolve.Egress, resolve.EgressSecrets, resolve.EgressSecret),
	}
}
