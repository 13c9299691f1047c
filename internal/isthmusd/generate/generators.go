// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/envoy"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resolve"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// generators is all that a proxy can get.
func generators() []generator {
	return []generator{
		{resolve.Sidecar, resource.Clusters, resolve.SidecarClusters, clusters(resolve.SidecarCluster)},
		{resolve.Sidecar, resource.OwnClusters, resolve.SidecarOwnClusters, clusters(resolve.SidecarCluster)},
		{resolve.Sidecar, resource.Endpoints, resolve.Assignments, built(resolve.Assignment, envoy.Assignment)},
		{resolve.Sidecar, resource.Listeners, resolve.SidecarListeners, built(resolve.SidecarListener, envoy.Listener)},
		{resolve.Sidecar, resource.OwnListeners, resolve.SidecarOwnListeners, built(resolve.SidecarListener, envoy.Listener)},
		{resolve.Sidecar, resource.Tables, resolve.SidecarTables, built(resolve.SidecarTable, envoy.RouteConfig)},
		{resolve.Sidecar, resource.Hosts, resolve.SidecarHosts, built(resolve.SidecarHost, envoy.VirtualHost)},
		{resolve.Sidecar, resource.UnregisteredHosts, resolve.SidecarUnregisteredHosts, built(resolve.SidecarUnregisteredHost, envoy.VirtualHost)},

		{resolve.Gateway, resource.Clusters, resolve.GatewayClusters, clusters(resolve.GatewayCluster)},
		{resolve.Gateway, resource.Endpoints, resolve.GatewayAssignments, built(resolve.Assignment, envoy.Assignment)},
		{resolve.Gateway, resource.Listeners, resolve.GatewayListeners, built(resolve.GatewayListener, envoy.Listener)},
		{resolve.Gateway, resource.Tables, resolve.GatewayRoutes, built(resolve.GatewayRoute, envoy.RouteConfig)},
		{resolve.Gateway, resource.Secrets, resolve.GatewaySecrets, built(resolve.GatewaySecret, envoy.Secret)},

		{resolve.Egress, resource.Clusters, resolve.EgressClusters, clusters(resolve.EgressCluster)},
		{resolve.Egress, resource.Listeners, resolve.EgressListeners, built(resolve.EgressListener, envoy.Listener)},
		{resolve.Egress, resource.Secrets, resolve.EgressSecrets, built(resolve.EgressSecret, envoy.Secret)},
	}
}
