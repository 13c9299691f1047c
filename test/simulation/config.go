// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// Config is what one proxy has been told. It is not to be changed once made.
type Config struct {
	listeners   []*listenerv3.Listener
	routes      map[string]*routev3.RouteConfiguration
	hosts       []*routev3.VirtualHost // that are in no table yet
	clusters    map[string]*clusterv3.Cluster
	assignments map[string]*endpointv3.ClusterLoadAssignment
}

// New makes a Config of listeners, route configurations, clusters and load
// assignments. Virtual hosts that come on their own, and are called by their tables
// as resources are, are put into those. Secrets are left out: nothing depends on what is in them.
func New(resources ...proto.Message) (*Config, error) {
	c := &Config{
		routes:      map[string]*routev3.RouteConfiguration{},
		clusters:    map[string]*clusterv3.Cluster{},
		assignments: map[string]*endpointv3.ClusterLoadAssignment{},
	}
	for _, m := range resources {
		if err := c.add(m); err != nil {
			return nil, err
		}
	}
	if err := c.fillTables(); err != nil {
		return nil, err
	}
	slices.SortFunc(c.listeners, func(a, b *listenerv3.Listener) int { return cmp.Compare(a.Name, b.Name) })
	return c, nil
}

func (c *Config) add(m proto.Message) error {
	switch m := m.(type) {
	case *listenerv3.Listener:
		c.listeners = append(c.listeners, m)
	case *routev3.RouteConfiguration:
		c.routes[m.Name] = m
	case *routev3.VirtualHost:
		c.hosts = append(c.hosts, m)
	case *clusterv3.Cluster:
		c.clusters[m.Name] = m
	case *endpointv3.ClusterLoadAssignment:
		c.assignments[m.ClusterName] = m
	default:
		return fmt.Errorf("a proxy's configuration has no %T", m)
	}
	return nil
}

// fillTables puts virtual hosts into their tables.
func (c *Config) fillTables() error {
	own := map[string]bool{}
	for _, h := range c.hosts {
		name, _, _ := strings.Cut(h.Name, "/")
		table := c.routes[name]
		if table.GetVhds() == nil {
			return fmt.Errorf("virtual host %q is of no table that has such", h.Name)
		}
		if !own[name] {
			own[name] = true
			table = proto.Clone(table).(*routev3.RouteConfiguration)
			c.routes[name] = table
		}
		table.VirtualHosts = append(table.VirtualHosts, h)
	}
	c.hosts = nil
	return nil
}

// Equal tells whether two Configs say the same.
func (c *Config) Equal(o *Config) bool {
	same := func(a, b *listenerv3.Listener) bool { return proto.Equal(a, b) }
	return slices.EqualFunc(c.listeners, o.listeners, same) && sameMessages(c.routes, o.routes) &&
		sameMessages(c.clusters, o.clusters) && sameMessages(c.assignments, o.assignments)
}

func sameMessages[M proto.Message](a, b map[string]M) bool {
	return maps.EqualFunc(a, b, func(x, y M) bool { return proto.Equal(x, y) })
}

// FromState makes a Config of what isthmusd would send to a class of proxies.
func FromState(s *resource.State) (*Config, error) {
	var all []proto.Message
	for t, set := range s.Sets {
		if resource.Type(t) == resource.Secret {
			continue
		}
		for _, r := range set.List() {
			m, err := (&anypb.Any{TypeUrl: r.Type.URL(), Value: r.Body}).UnmarshalNew()
			if err != nil {
				return nil, fmt.Errorf("read %s %q: %w", r.Type.URL(), r.Name, err)
			}
			all = append(all, m)
		}
	}
	return New(all...)
}

// unpack reads a packed message of a known type; false if it is of another.
func unpack[M proto.Message](a *anypb.Any, into M) (M, bool, error) {
	if !a.MessageIs(into) {
		return into, false, nil
	}
	if err := a.UnmarshalTo(into); err != nil {
		return into, true, fmt.Errorf("read %s: %w", a.TypeUrl, err)
	}
	return into, true, nil
}
