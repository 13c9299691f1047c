// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"encoding/json"
	"fmt"
	"slices"

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
		StaticListeners  []listener `json:"static_listeners"`
		DynamicListeners []struct {
			ActiveState listener `json:"active_state"`
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
	// state is what Envoy says of any resource: between two dumps with the same
	// version and time it is the same resource.
	state struct {
		Version string `json:"version_info"`
		Updated string `json:"last_updated"`
	}
	listener struct {
		state
		Listener json.RawMessage `json:"listener"`
	}
	cluster struct {
		state
		Cluster json.RawMessage `json:"cluster"`
	}
	routes struct {
		state
		RouteConfig json.RawMessage `json:"route_config"`
	}
	load struct {
		EndpointConfig json.RawMessage `json:"endpoint_config"`
	}
)

// FromDump makes a Config of what a running Envoy answers to
// /config_dump?include_eds.
func FromDump(text []byte) (*Config, error) { return new(Reader).Read(text) }

// A Reader reads the dumps of one Envoy, one after another, and reads anew only
// what has changed in between. It is not for several goroutines at once.
type Reader struct {
	known map[key]proto.Message
}

// key tells resources of one Envoy apart. Neither text nor its hash would do:
// Envoy writes the entries of a map in any order.
type key struct {
	state
	name   string
	length int
}

// Read makes a Config of what Envoy answers to /config_dump?include_eds. Configs
// share messages and must not be changed.
func (r *Reader) Read(text []byte) (*Config, error) {
	var d dump
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, fmt.Errorf("read configuration dump: %w", err)
	}
	all := pass{before: r.known, known: map[key]proto.Message{}}
	for _, c := range d.Configs {
		for _, l := range c.StaticListeners {
			all.add(l.state, l.Listener, &listenerv3.Listener{})
		}
		for _, l := range c.DynamicListeners {
			all.add(l.ActiveState.state, l.ActiveState.Listener, &listenerv3.Listener{})
		}
		for _, l := range slices.Concat(c.StaticClusters, c.DynamicActiveClusters) {
			all.add(l.state, l.Cluster, &clusterv3.Cluster{})
		}
		for _, t := range slices.Concat(c.StaticRoutes, c.DynamicRoutes) {
			all.add(t.state, t.RouteConfig, &routev3.RouteConfiguration{})
		}
		for _, e := range slices.Concat(c.StaticEndpoints, c.DynamicEndpoints) {
			all.add(state{}, e.EndpointConfig, &endpointv3.ClusterLoadAssignment{})
		}
	}
	if all.failed != nil {
		return nil, all.failed
	}
	r.known = all.known
	return New(all.messages...)
}

// pass goes once through a dump.
type pass struct {
	before, known map[key]proto.Message
	messages      []proto.Message
	failed        error
}

// add reads a resource into m, unless it was read before. One without a time, as
// endpoints are, may change unseen.
func (p *pass) add(s state, raw json.RawMessage, m proto.Message) {
	if len(raw) == 0 || p.failed != nil {
		return
	}
	if s.Updated == "" {
		p.failed = readJSON(raw, m)
		p.messages = append(p.messages, m)
		return
	}
	var named struct {
		Name string `json:"name"`
	}
	if p.failed = json.Unmarshal(raw, &named); p.failed != nil {
		return
	}
	k := key{s, fmt.Sprintf("%T %s", m, named.Name), len(raw)}
	if old, ok := p.before[k]; ok {
		m = old
	} else {
		p.failed = readJSON(raw, m)
	}
	p.known[k] = m
	p.messages = append(p.messages, m)
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
