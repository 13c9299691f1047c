// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
)

// Keys of endpoint metadata.
const (
	matchKey = "envoy.transport_socket_match"
	istioKey = "istio"
	tlsMode  = "tlsMode"
)

// Assignment turns endpoints into a ClusterLoadAssignment.
func Assignment(a ir.Assignment) (*endpointv3.ClusterLoadAssignment, error) {
	m := assignment(a.Name, a.Localities)
	return m, (&packer{}).done("assignment", a.Name)
}

func assignment(name string, ls []ir.Locality) *endpointv3.ClusterLoadAssignment {
	m := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	for _, l := range ls {
		out := &endpointv3.LocalityLbEndpoints{
			Priority:            l.Priority,
			LoadBalancingWeight: optU32(l.Weight),
		}
		if l.Region != "" || l.Zone != "" || l.SubZone != "" {
			out.Locality = &corev3.Locality{Region: l.Region, Zone: l.Zone, SubZone: l.SubZone}
		}
		for _, e := range l.Endpoints {
			out.LbEndpoints = append(out.LbEndpoints, endpoint(e))
		}
		m.Endpoints = append(m.Endpoints, out)
	}
	return m
}

func endpoint(e ir.Endpoint) *endpointv3.LbEndpoint {
	return &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: endpointAddress(e),
		}},
		LoadBalancingWeight: u32(max(e.Weight, 1)),
		Metadata:            endpointMetadata(e),
	}
}

func endpointAddress(e ir.Endpoint) *corev3.Address {
	switch {
	case e.Internal:
		return &corev3.Address{Address: &corev3.Address_EnvoyInternalAddress{EnvoyInternalAddress: &corev3.EnvoyInternalAddress{
			AddressNameSpecifier: &corev3.EnvoyInternalAddress_ServerListenerName{ServerListenerName: e.Address},
		}}}
	case strings.HasPrefix(e.Address, "/"):
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: e.Address}}}
	}
	return socketAddress(e.Address, e.Port)
}

func endpointMetadata(e ir.Endpoint) *corev3.Metadata {
	m := map[string]*structpb.Struct{}
	if e.TLSMode != "" {
		m[matchKey] = fields(map[string]string{tlsMode: e.TLSMode})
	}
	if e.Workload != "" {
		m[istioKey] = fields(map[string]string{"workload": e.Workload})
	}
	if len(m) == 0 {
		return nil
	}
	return &corev3.Metadata{FilterMetadata: m}
}
