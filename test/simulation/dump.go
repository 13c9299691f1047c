// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"encoding/json"
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// dump is the part of /config_dump?include_eds that counts: what is in force, not
// what warms up or drains.
type dump struct {
	Configs []struct {
		StaticListeners []struct {
			Listener json.RawMessage `json:"listener"`
		} `json:"static_listeners"`
		DynamicListeners []struct {
			ActiveState struct {
				Listener json.RawMessage `json:"listener"`
			} `json:"active_state"`
		} `json:"dynamic_listeners"`
		StaticClusters        []cluster `json:"static_clusters"`
		DynamicActiveClusters []cluster `json:"dynamic_active_clusters"`
		StaticRoutes          []routes  `json:"static_route_configs"`
		DynamicRoutes         []routes  `json:"dynamic_route_configs"`
		StaticEndpoints       []load    `json:"static_endpoint_configs"`
		DynamicEndpoints      []load    `json:"dynamic_endpoint_configs"`
	} `json:"configs"`
}

type (
	cluster struct {
		Cluster json.RawMessage `json:"cluster"`
	}
	routes struct {
		RouteConfig json.RawMessage `json:"route_config"`
	}
	load struct {
		EndpointConfig json.RawMessage `json:"endpoint_config"`
	}
)

// FromDump makes a Config of what a running Envoy answers to
// /config_dump?include_eds.
func FromDump(text []byte) (*Config, error) {
	var d dump
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, fmt.Errorf("read configuration dump: %w", err)
	}
	var all []proto.Message
	var failed error
	add := func(raw json.RawMessage, m proto.Message) {
		if len(raw) == 0 || failed != nil {
			return
		}
		if failed = readJSON(raw, m); failed == nil {
			all = append(all, m)
		}
	}
	for _, c := range d.Configs {
		for _, l := range c.StaticListeners {
			add(l.Listener, &listenerv3.Listener{})
		}
		for _, l := range c.DynamicListeners {
			add(l.ActiveState.Listener, &listenerv3.Listener{})
		}
		for _, l := range append(c.StaticClusters, c.DynamicActiveClusters...) {
			add(l.Cluster, &clusterv3.Cluster{})
		}
		for _, r := range append(c.StaticRoutes, c.DynamicRoutes...) {
			add(r.RouteConfig, &routev3.RouteConfiguration{})
		}
		for _, e := range append(c.StaticEndpoints, c.DynamicEndpoints...) {
			add(e.EndpointConfig, &endpointv3.ClusterLoadAssignment{})
		}
	}
	if failed != nil {
		return nil, failed
	}
	return New(all...)
}

// readJSON reads a message. Packed messages of types that are not linked in become
// ones that say their type and nothing else, so that only who depends on them ends
// undecided.
func readJSON(raw []byte, into proto.Message) error {
	read := protojson.UnmarshalOptions{DiscardUnknown: true}
	if read.Unmarshal(raw, into) == nil {
		return nil
	}
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		return fmt.Errorf("read %T: %w", into, err)
	}
	raw, err := json.Marshal(stripped(tree))
	if err != nil {
		return fmt.Errorf("strip %T: %w", into, err)
	}
	proto.Reset(into)
	if err := read.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("read %T: %w", into, err)
	}
	return nil
}

// stripped replaces packed messages of unknown types by text that names the type.
func stripped(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = stripped(v[i])
		}
	case map[string]any:
		if url, ok := v["@type"].(string); ok {
			if _, err := protoregistry.GlobalTypes.FindMessageByURL(url); err != nil {
				return map[string]any{"@type": "type.googleapis.com/google.protobuf.StringValue", "value": url}
			}
		}
		for k := range v {
			v[k] = stripped(v[k])
		}
	}
	return v
}
