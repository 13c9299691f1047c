// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"encoding/json"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

// configFrom reads resources from YAML as Envoy's documentation writes them.
func configFrom(t testing.TB, text string) *Config {
	t.Helper()
	var parts struct {
		Listeners, Routes, Clusters, Endpoints []json.RawMessage
	}
	if err := yaml.UnmarshalStrict([]byte(text), &parts); err != nil {
		t.Fatal(err)
	}
	var all []proto.Message
	read := func(list []json.RawMessage, make func() proto.Message) {
		for _, raw := range list {
			m := make()
			if err := protojson.Unmarshal(raw, m); err != nil {
				t.Fatal(err)
			}
			if v, ok := m.(interface{ ValidateAll() error }); ok {
				if err := v.ValidateAll(); err != nil {
					t.Fatal(err)
				}
			}
			all = append(all, m)
		}
	}
	read(parts.Listeners, func() proto.Message { return &listenerv3.Listener{} })
	read(parts.Routes, func() proto.Message { return &routev3.RouteConfiguration{} })
	read(parts.Clusters, func() proto.Message { return &clusterv3.Cluster{} })
	read(parts.Endpoints, func() proto.Message { return &endpointv3.ClusterLoadAssignment{} })
	c, err := New(all...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
