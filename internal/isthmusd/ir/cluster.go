// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ir

import (
	"net/netip"
	"time"
)

// Discovery is how a cluster finds its endpoints.
type Discovery uint8

// Discoveries.
const (
	EDS Discovery = iota
	Static
	StrictDNS
	LogicalDNS
	OriginalDst
	// Dynamic resolves the host that each request or SNI names.
	Dynamic
)

// IPFamily that names are resolved to.
type IPFamily uint8

// Families.
const (
	V4Only IPFamily = iota
	V6Only
	AllFamilies
)

// UpstreamProtocol of a cluster.
type UpstreamProtocol uint8

// Protocols. Bytes is for anything that is not HTTP.
const (
	Bytes UpstreamProtocol = iota
	HTTP1
	HTTP2
	// SameAsClient speaks to the upstream what the client spoke.
	SameAsClient
)

// NeverOutside are the ranges that no host outside can have: unspecified,
// loopback, link-local and multicast addresses.
func NeverOutside() []netip.Prefix {
	var out []netip.Prefix
	for _, r := range []string{
		"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4",
		"::/127", "fe80::/10", "ff00::/8", "fd00:ec2::254/128",
	} {
		out = append(out, netip.MustParsePrefix(r))
	}
	return out
}

// Cluster is one upstream.
type Cluster struct {
	Name      string
	Discovery Discovery
	// Assignment is the name of the set of endpoints that an EDS cluster asks for.
	Assignment string
	// Localities of Static and DNS clusters.
	Localities []Locality
	Family     IPFamily
	// Outside refuses requests for addresses that no host outside can have, where DNS
	// says that a name means such a one. Bytes are not refused: Envoy has no means.
	Outside bool
	// Cache of Dynamic clusters.
	Cache DNSCache
	// Asked refuses requests whose authority none of these matches; empty lets all pass.
	Asked    []StringMatch
	Protocol UpstreamProtocol
	TLS      *ClientTLS
	// Auto begins TLS only to endpoints whose TLSMode says that they end it.
	Auto bool
	// Tunnelled reaches internal listeners, passing on what the chain kept of the peer.
	Tunnelled bool
	Balance   Balance
	Pool      Pool
	Outlier   *Outlier
	// Sources to bind before connecting, the first one primary.
	Sources []string
	// Services for people and tools.
	Services []ServiceRef
	// Config is the path of the object that shaped the cluster.
	Config string
	// OnDemand clusters go only to proxies that ask for them by name.
	OnDemand bool
	// EndpointWait bounds how long an EDS cluster waits for its first endpoints; 0 for
	// the usual.
	EndpointWait time.Duration
}

// ServiceRef names a service for tools.
type ServiceRef struct{ Host, Name, Namespace string }

// Policy of load balancing.
type Policy uint8

// Policies.
const (
	LeastRequest Policy = iota
	RoundRobin
	Random
	RingHash
	Maglev
	// Chosen leaves the choice to the cluster: original destination.
	Chosen
)

// Balance is how load is spread over endpoints.
type Balance struct {
	Policy Policy
	// MinRing and Table sizes for hashing; 0 keeps Envoy's.
	MinRing, Table uint64
	// Warmup lets new endpoints take their share over this time.
	Warmup           time.Duration
	WarmupMin        uint32
	WarmupAggression float64
	// PanicThreshold in percent; nil keeps Envoy's.
	PanicThreshold *float64
	// Weighted spreads over localities by their weights.
	LocalityWeighted bool
}

// Pool bounds connections; zero means no limit (but for ConnectTimeout: the mesh's default).
type Pool struct {
	ConnectTimeout                                      time.Duration
	MaxConnections, MaxPending, MaxRequests, MaxRetries uint32
	RequestsPerConnection                               uint32
	ConcurrentStreams                                   uint32
	IdleTimeout                                         time.Duration
	MaxConnectionDuration                               time.Duration
	Keepalive                                           *Keepalive
}

// Keepalive of TCP.
type Keepalive struct {
	Probes   uint32
	Time     time.Duration
	Interval time.Duration
}

// Outlier ejects failing endpoints; nil pointers keep Envoy's defaults.
type Outlier struct {
	Consecutive5xx     *uint32
	ConsecutiveGateway *uint32
	ConsecutiveLocal   *uint32
	SplitLocal         bool
	// OnlyLocal counts nothing but failures to connect.
	OnlyLocal    bool
	Interval     time.Duration
	BaseEjection time.Duration
	MaxPercent   uint32
}

// Locality is endpoints of one place.
type Locality struct {
	Region, Zone, SubZone string
	Weight                uint32
	Priority              uint32
	Endpoints             []Endpoint
}

// Endpoint is an address with its weight.
type Endpoint struct {
	// Address is an IP, a DNS name, a unix path (beginning with '/') or, with Internal, an internal listener.
	Address  string
	Internal bool
	Port     uint32
	Weight   uint32
	// TLSMode is what automatic TLS looks at.
	TLSMode string
	// Workload describes the endpoint for telemetry.
	Workload string
}

// Assignment is the endpoints of an EDS cluster.
type Assignment struct {
	Name       string
	Localities []Locality
}

// Secret is TLS material for a gateway: a key pair, or authorities only.
type Secret struct {
	Name             string
	Certificate, Key []byte
	CA               []byte
}
