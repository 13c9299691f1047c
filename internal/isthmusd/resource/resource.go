// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package resource holds what travels between the translator and the xDS
// server: finished bytes with a name, a type and a content version. It knows
// neither Kubernetes nor Envoy's API.
package resource

import (
	"slices"
	"sort"
	"strings"
)

// Type is one of the discovery types that isthmusd serves.
type Type uint8

// Types in the order in which they are sent.
const (
	Cluster Type = iota
	Endpoint
	Listener
	Route
	// VirtualHost is one of a Route that says that its hosts come on their own,
	// named "<route>/<host>".
	VirtualHost
	Secret
	NumTypes
)

// Part is some resources of a type, or pieces of them, that are listed on their
// own: a change in one list, or a workload that differs in one, leaves the others be.
type Part uint8

// Parts.
const (
	// Clusters for what a proxy calls, and OwnClusters for what its workload serves.
	Clusters Part = iota
	OwnClusters
	Endpoints
	// Listeners for what a proxy calls, and OwnListeners for what its workload serves.
	Listeners
	OwnListeners
	// Tables are route configurations, with the virtual hosts that cannot stand
	// alone. Hosts are the others, "<table>/<host>": the virtual hosts of services.
	// UnregisteredHosts are those that no registry knows.
	Tables
	Hosts
	UnregisteredHosts
	Secrets
	NumParts
)

// Type that the part is of.
func (p Part) Type() Type {
	return [NumParts]Type{Cluster, Cluster, Endpoint, Listener, Listener, Route, VirtualHost, VirtualHost, Secret}[p]
}

// URLs are the type URLs on the wire, indexed by Type.
var urls = [NumTypes]string{
	"type.googleapis.com/envoy.config.cluster.v3.Cluster",
	"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
	"type.googleapis.com/envoy.config.listener.v3.Listener",
	"type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
	"type.googleapis.com/envoy.config.route.v3.VirtualHost",
	"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
}

// URL is the type's name on the wire.
func (t Type) URL() string { return urls[t] }

// TypeOf finds the Type with this URL.
func TypeOf(url string) (Type, bool) {
	for t, u := range urls {
		if u == url {
			return Type(t), true
		}
	}
	return 0, false
}

// Resource is one finished resource. Immutable, shared by all proxies that get
// the same bytes.
type Resource struct {
	Type Type
	Name string
	// Version is a hash of Body, salted with the translator's version.
	Version uint64
	// Body is the marshalled resource message (the value inside google.protobuf.Any).
	Body []byte
	// Upstream of a Cluster of type EDS.
	Upstream
	// HostsApart is true for a Route whose virtual hosts come on their own.
	HostsApart bool
	// Mirrors are the clusters to which a Route or VirtualHost copies requests:
	// Envoy never asks for those.
	Mirrors []string
}

// Upstream is what the xDS server has to know of a Cluster to send it and its
// endpoints in the right order.
type Upstream struct {
	// ServiceName is the EDS name that the cluster asks for, "" for no EDS. That
	// ClusterLoadAssignment goes after the cluster, though nobody asked (Envoy
	// does not ask again when a cluster is replaced).
	ServiceName string
	// Trusts are the identities that endpoints may prove, sorted; empty if none is
	// named. A longer list goes before the endpoints, a shorter one after them.
	Trusts []string
	// OnDemand Clusters go to those who ask for them by name, and to nobody else.
	OnDemand bool
}

// Set is an immutable set of resources of one type, sorted by name.
type Set struct {
	list []*Resource
}

// NewSet sorts the resources by name; of two with one name the first is kept.
func NewSet(rs []*Resource) *Set {
	l := append([]*Resource(nil), rs...)
	sort.SliceStable(l, func(i, j int) bool { return l[i].Name < l[j].Name })
	out := l[:0]
	for i, r := range l {
		if i == 0 || l[i-1].Name != r.Name {
			out = append(out, r)
		}
	}
	return &Set{list: out}
}

// Union holds the resources of both sets; of two with one name, a's. It is one of
// the two where the other is empty.
func Union(a, b *Set) *Set {
	switch {
	case len(b.List()) == 0:
		return a
	case len(a.List()) == 0:
		return b
	}
	out := make([]*Resource, 0, len(a.list)+len(b.list))
	x, y := a.list, b.list
	for len(x) > 0 && len(y) > 0 {
		// One has often few: of the other, all that comes before goes at once.
		n := search(x, y[0].Name)
		if out, x = append(out, x[:n]...), x[n:]; len(x) == 0 {
			break
		}
		if x[0].Name == y[0].Name {
			y = y[1:]
			continue
		}
		n = search(y, x[0].Name)
		out, y = append(out, y[:n]...), y[n:]
	}
	return &Set{list: append(append(out, x...), y...)}
}

// search finds where the name is in a sorted list, or would be.
func search(l []*Resource, name string) int {
	return sort.Search(len(l), func(i int) bool { return l[i].Name >= name })
}

// With is the set with these resources in place of those that it has by their
// names; what it has none of is left out. Nothing is compared but what changes.
func (s *Set) With(changed ...*Resource) *Set {
	out := &Set{list: slices.Clone(s.List())}
	for _, r := range changed {
		if i := search(out.list, r.Name); i < len(out.list) && out.list[i].Name == r.Name {
			out.list[i] = r
		}
	}
	return out
}

// List returns the resources in the order of their names; not to be modified.
func (s *Set) List() []*Resource {
	if s == nil {
		return nil
	}
	return s.list
}

// Below returns the resources that are called "<name>/…", in their order.
func (s *Set) Below(name string) []*Resource {
	all, prefix := s.List(), name+"/"
	from := search(all, prefix)
	n := sort.Search(len(all)-from, func(i int) bool { return !strings.HasPrefix(all[from+i].Name, prefix) })
	return all[from : from+n]
}

// Unasked are those of the clusters that go to everybody who gets any: the ones
// that are not on demand, and the mirrors of routes and virtual hosts. Without
// clusters on demand it is the same Set.
func Unasked(clusters *Set, routes ...*Set) *Set {
	asked := func(r *Resource) bool { return r.OnDemand }
	if !slices.ContainsFunc(clusters.List(), asked) {
		return clusters
	}
	out := slices.DeleteFunc(slices.Clone(clusters.List()), asked)
	for _, set := range routes {
		for _, r := range set.List() {
			for _, name := range r.Mirrors {
				if c := clusters.Get(name); c != nil {
					out = append(out, c)
				}
			}
		}
	}
	return NewSet(out)
}

// Get finds a resource by name, or nil.
func (s *Set) Get(name string) *Resource {
	if s == nil {
		return nil
	}
	i := search(s.list, name)
	if i < len(s.list) && s.list[i].Name == name {
		return s.list[i]
	}
	return nil
}

// State is all that a class of proxies should have. Immutable; two proxies of
// one class share the pointer, and an unchanged Set keeps its pointer from one
// State to the next.
type State struct {
	// Revision of the snapshot that it was built from; grows.
	Revision uint64
	// Epoch of the topology configuration, see topology.Config.
	Epoch string
	Sets  [NumTypes]*Set
	// Unasked are the clusters that also go to proxies which ask for what they need,
	// see Unasked.
	Unasked *Set
}
