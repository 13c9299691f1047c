// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// dump is the part of /config_dump?include_eds that counts: what is in force, not
// what warms up or drains. Each element of a list is a part, or the number of one
// that was cut out.
type dump struct {
	Configs []struct {
		StaticListeners       []json.RawMessage `json:"static_listeners"`
		DynamicListeners      []json.RawMessage `json:"dynamic_listeners"`
		StaticClusters        []json.RawMessage `json:"static_clusters"`
		DynamicActiveClusters []json.RawMessage `json:"dynamic_active_clusters"`
		StaticRoutes          []json.RawMessage `json:"static_route_configs"`
		DynamicRoutes         []json.RawMessage `json:"dynamic_route_configs"`
		StaticEndpoints       []json.RawMessage `json:"static_endpoint_configs"`
		DynamicEndpoints      []json.RawMessage `json:"dynamic_endpoint_configs"`
	} `json:"configs"`
}

type (
	// state is what Envoy says of any resource but endpoints: between two dumps with
	// the same version and time it is the same resource.
	state struct {
		Version string `json:"version_info"`
		Updated string `json:"last_updated"`
	}
	// part is an element of one of the lists: a resource and its state. What has no
	// resource is not in force.
	part struct {
		state
		Listener       json.RawMessage `json:"listener"`
		Cluster        json.RawMessage `json:"cluster"`
		RouteConfig    json.RawMessage `json:"route_config"`
		EndpointConfig json.RawMessage `json:"endpoint_config"`
		ActiveState    struct {
			state
			Listener json.RawMessage `json:"listener"`
		} `json:"active_state"`
	}
)

// FromDump makes a Config of what a running Envoy answers to
// /config_dump?include_eds.
func FromDump(text []byte) (*Config, error) { return new(Reader).Read(text) }

// A Reader reads the dumps of one Envoy, one after another, and reads anew only
// what has changed in between: JSON costs much more than comparing text, the more so
// with the race detector. It is not for several goroutines at once.
type Reader struct {
	outlines map[string]*dump
	// texts are parts by what Envoy wrote, known are those with a state: Envoy writes
	// the entries of a map in any order, so that one resource has many texts.
	texts map[string]proto.Message
	known map[key]proto.Message
}

// key tells resources of one Envoy apart.
type key struct {
	state
	name   string
	length int
}

// Read makes a Config of what Envoy answers to /config_dump?include_eds. Configs
// share messages and must not be changed.
func (r *Reader) Read(text []byte) (*Config, error) {
	if r.texts == nil {
		*r = Reader{outlines: map[string]*dump{}, texts: map[string]proto.Message{}, known: map[key]proto.Message{}}
	}
	outline, parts := cut(text)
	d, ok := r.outlines[string(outline)]
	if !ok {
		d = &dump{}
		if err := json.Unmarshal(outline, d); err != nil {
			return nil, fmt.Errorf("read configuration dump: %w", err)
		}
		r.outlines[string(outline)] = d
	}
	var all []proto.Message
	for _, c := range d.Configs {
		for _, raw := range slices.Concat(c.StaticListeners, c.DynamicListeners, c.StaticClusters, c.DynamicActiveClusters,
			c.StaticRoutes, c.DynamicRoutes, c.StaticEndpoints, c.DynamicEndpoints) {
			if n, err := strconv.Atoi(string(raw)); err == nil {
				raw = parts[n]
			}
			m, err := r.message(raw)
			if err != nil {
				return nil, err
			}
			if m != nil {
				all = append(all, m)
			}
		}
	}
	return New(all...)
}

// cut takes the parts out of a dump and leaves their numbers. They are found by how
// far Envoy indents them; those of a dump that is written otherwise stay where they
// are.
func cut(text []byte) (outline []byte, parts [][]byte) {
	begin, end := []byte("\n    {\n"), []byte("\n    }")
	for {
		at := bytes.Index(text, begin)
		if at < 0 {
			break
		}
		length := bytes.Index(text[at+1:], end)
		if length < 0 {
			break
		}
		after := at + 1 + length + len(end)
		outline = strconv.AppendInt(append(outline, text[:at+1]...), int64(len(parts)), 10)
		parts = append(parts, text[at+1:after])
		text = text[after:]
	}
	return append(outline, text...), parts
}

// message is the resource that a part holds, nil if it holds none.
func (r *Reader) message(raw []byte) (proto.Message, error) {
	if m, ok := r.texts[string(raw)]; ok {
		return m, nil
	}
	var p part
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, fmt.Errorf("read a part of a configuration dump: %w", err)
	}
	if len(p.ActiveState.Listener) > 0 {
		p.state, p.Listener = p.ActiveState.state, p.ActiveState.Listener
	}
	var m proto.Message
	var err error
	switch {
	case len(p.Listener) > 0:
		m, err = r.resource(p.state, p.Listener, &listenerv3.Listener{})
	case len(p.Cluster) > 0:
		m, err = r.resource(p.state, p.Cluster, &clusterv3.Cluster{})
	case len(p.RouteConfig) > 0:
		m, err = r.resource(p.state, p.RouteConfig, &routev3.RouteConfiguration{})
	case len(p.EndpointConfig) > 0:
		m = &endpointv3.ClusterLoadAssignment{}
		err = readJSON(p.EndpointConfig, m)
	}
	if err == nil {
		r.texts[string(raw)] = m
	}
	return m, err
}

// resource reads a resource into m, unless it was read before.
func (r *Reader) resource(s state, raw []byte, m proto.Message) (proto.Message, error) {
	if err := readJSON(raw, m); err != nil {
		return nil, err
	}
	if table, ok := m.(*routev3.RouteConfiguration); ok && table.Vhds != nil {
		return m, nil // Its virtual hosts change as they please.
	}
	k := key{s, fmt.Sprintf("%T %s", m, m.(interface{ GetName() string }).GetName()), len(raw)}
	if old, ok := r.known[k]; ok && s.Updated != "" {
		return old, nil
	}
	r.known[k] = m
	return m, nil
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
