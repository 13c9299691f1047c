// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package ir holds what a proxy is to do, as plain values: listeners, routes,
// clusters and endpoints. Package resolve makes them from the snapshot; package
// envoy turns them into Envoy's messages. It knows neither Kubernetes nor Istio
// nor protobuf, so each side can be read and tested without the other.
package ir

import (
	"net/netip"
	"time"
)

// Address that a listener stands for.
type Address struct {
	IP   string
	Port uint32
}

// Direction of traffic, seen from the proxy's workload.
type Direction uint8

// Directions. A gateway's listeners are Outbound, as in Istio.
const (
	Inbound Direction = iota
	Outbound
)

// Binding says how connections reach a listener.
type Binding uint8

// Bindings.
const (
	// Bound listeners own a socket.
	Bound Binding = iota
	// Virtual listeners get connections handed over by their original destination.
	Virtual
	// Internal listeners are reached from clusters of the same Envoy only.
	Internal
)

// Listener is one listener. Nothing in it may change when only the topology
// does: Envoy drains every connection of a listener whose own fields change.
type Listener struct {
	Name string
	// Addresses, the first one primary; empty for Internal listeners.
	Addresses []Address
	Direction Direction
	Binding   Binding
	// HandOver passes connections to the listener of their original destination.
	HandOver bool
	// Restore finds the original destination, without handing over.
	Restore bool
	Inspect Inspection
	Chains  []Chain
	// ByAddress chooses chains by destination instead of by their Match, which
	// must be empty then. A change of it leaves the chains, and the connections in
	// them, alone.
	ByAddress []AddressChoice
	// Default takes what no chain matches; nil closes such connections.
	Default *Chain
	// AccessLog of connections that no chain takes.
	AccessLog *AccessLog
	// Exposed marks a listener for clients outside the mesh.
	Exposed bool
}

// AddressChoice names the chain for a set of destinations.
type AddressChoice struct {
	Ranges []netip.Prefix
	Chain  string
}

// Inspection of a connection's first bytes.
type Inspection struct {
	TLS  bool
	HTTP bool
	// HTTPExcept lists destination ports on which HTTP is not looked for.
	HTTPExcept []uint32
	// Timeout after which the connection goes on with what is known.
	Timeout time.Duration
}

// Match is a filter chain's condition; zero fields match everything.
type Match struct {
	Port        uint32
	Ranges      []netip.Prefix
	ServerNames []string
	ALPN        []string
	// Transport is TransportTLS, TransportPlain or "".
	Transport string
	// SourceRanges of the client.
	SourceRanges []netip.Prefix
}

// Transport protocols that inspection finds.
const (
	TransportTLS   = "tls"
	TransportPlain = "raw_buffer"
)

// Chain handles the connections that it matches. Exactly one of HTTP and TCP is set.
type Chain struct {
	Name  string
	Match Match
	// TLS ends TLS here; nil leaves the bytes as they are.
	TLS *ServerTLS
	// Callers restricts who may connect; nil means anybody.
	Callers *Callers
	// KeepPeer copies the peer's identity into PeerState, which internal listeners see.
	KeepPeer bool
	// KeepDialled copies the address that the client dialled into DialledState,
	// which the internal listeners behind see.
	KeepDialled bool
	// DynamicHost takes the upstream's name from the client's SNI.
	DynamicHost *DynamicHost
	HTTP        *HTTP
	TCP         *TCP
}

// PeerState is where a chain with KeepPeer keeps the client's identity.
const PeerState = "isthmus.peer"

// DialledState is where a chain with KeepDialled keeps the client's destination.
const DialledState = "isthmus.dialled"

// Callers is a list of allowed peers.
type Callers struct {
	StatPrefix string
	// Principals are SPIFFE URIs; one ending in "*" allows every identity with that prefix.
	Principals []string
}

// DynamicHost resolves the host that the client names in its SNI.
type DynamicHost struct {
	Port uint32
	// Cache names the DNS cache, shared with the cluster.
	Cache DNSCache
}

// DNSCache of dynamic forwarding.
type DNSCache struct {
	Name   string
	Family IPFamily
	// Outside leaves out addresses that no host outside can have.
	Outside bool
}

// TCP forwards bytes.
type TCP struct {
	StatPrefix string
	Clusters   []WeightedCluster
	// IdleTimeout closes quiet connections; 0 keeps Envoy's default of an hour, negative never closes.
	IdleTimeout time.Duration
	AccessLog   *AccessLog
	// HashSource balances by the client's address.
	HashSource bool
	// Tunnelled carries the bytes by HTTP CONNECT for what is in DialledState.
	Tunnelled bool
	// AwaitTLS delays the upstream connection until the downstream handshake is complete.
	AwaitTLS bool
	// OnDemand asks the control plane for a cluster that is not there.
	OnDemand bool
}

// WeightedCluster is a share of traffic.
type WeightedCluster struct {
	Cluster string
	Weight  uint32
	// Headers apply to requests that take this share (HTTP only).
	Headers HeaderOps
	// Authority replaces the request's host, "" keeps it (HTTP only).
	Authority string
}

// Edge says what a HTTP listener believes of its clients.
type Edge uint8

// Edges.
const (
	// FromApplication is the sidecar's own application.
	FromApplication Edge = iota
	// FromMesh is a peer proxy or a plaintext client inside.
	FromMesh
	// FromOutside is the world, in front of an ingress gateway.
	FromOutside
	// FromSidecar is a sidecar, in front of the egress gateway.
	FromSidecar
)

// HTTP is a HTTP connection manager. Exactly one of RouteName and Routes is set.
type HTTP struct {
	StatPrefix string
	// RouteName of a RouteConfiguration that is delivered on its own.
	RouteName string
	// Routes given in place.
	Routes    *RouteConfig
	Edge      Edge
	AccessLog *AccessLog
	// UpstreamALPN offers these protocols in mesh TLS to the upstream, whatever its cluster says.
	UpstreamALPN []string
	// Callers restricts who may send requests; others get 403.
	Callers *Callers
	// DynamicHost resolves the host that each request names, in this cache.
	DynamicHost *DNSCache
	// Tunnels ends tunnels: routes match CONNECT only, and the internal listeners
	// behind that restore the original destination get the one asked for.
	Tunnels bool
	// Hops is the number of trusted proxies in front.
	Hops uint32
	// OnDemand asks the control plane for a cluster that is not there.
	OnDemand bool
}

// AccessLog goes to a file; Format is text, or Fields are JSON.
type AccessLog struct {
	Path   string
	Format string
	Fields map[string]string
	// OnlyRefused logs only connections that no filter chain took.
	OnlyRefused bool
}
