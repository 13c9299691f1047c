// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"fmt"
	"slices"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

// Concerned is the configuration that the request met, in YAML: the listener with
// the filter chain that was chosen, the route table with the virtual host and the
// route, the cluster and its endpoints. Everything else is left out; what was looked
// for in vain is shown by what there was to match.
func (o Outcome) Concerned() string {
	if o.owner == nil {
		return ""
	}
	var met []proto.Message
	for _, l := range o.owner.listeners {
		if l.Name == o.Listener {
			met = append(met, o.onlyChain(l))
		}
	}
	if t, ok := o.owner.routes[o.RouteConfig]; ok {
		met = append(met, o.onlyRoute(t))
	}
	if c, ok := o.owner.clusters[o.Cluster]; ok {
		met = append(met, c)
		if a, ok := o.owner.assignments[o.Cluster]; ok {
			met = append(met, a)
		}
	}
	out := ""
	for _, m := range met {
		out += fmt.Sprintf("# %s\n%s", m.ProtoReflect().Descriptor().Name(), readable(m))
	}
	return out
}

// onlyChain has what all chains match where none of them was chosen.
func (o Outcome) onlyChain(l *listenerv3.Listener) *listenerv3.Listener {
	out := proto.CloneOf(l)
	if o.Chain == "" {
		for _, c := range out.FilterChains {
			c.Filters, c.TransportSocket = nil, nil
		}
		return out
	}
	out.FilterChains = slices.DeleteFunc(out.FilterChains, func(c *listenerv3.FilterChain) bool { return c.Name != o.Chain })
	if out.GetDefaultFilterChain().GetName() != o.Chain {
		out.DefaultFilterChain = nil
	}
	return out
}

// onlyRoute has the domains of all virtual hosts where none of them was chosen.
func (o Outcome) onlyRoute(t *routev3.RouteConfiguration) *routev3.RouteConfiguration {
	out := proto.CloneOf(t)
	if o.VirtualHost == "" {
		for _, h := range out.VirtualHosts {
			h.Routes = nil
		}
		return out
	}
	out.VirtualHosts = slices.DeleteFunc(out.VirtualHosts, func(h *routev3.VirtualHost) bool { return h.Name != o.VirtualHost })
	for _, h := range out.VirtualHosts {
		if o.Route != "" {
			h.Routes = slices.DeleteFunc(h.Routes, func(r *routev3.Route) bool { return r.Name != o.Route })
		}
	}
	return out
}

func readable(m proto.Message) string {
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err == nil {
		b, err = yaml.JSONToYAML(b)
	}
	if err != nil {
		return err.Error() + "\n"
	}
	return string(b)
}
