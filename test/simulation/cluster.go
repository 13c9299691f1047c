// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	dfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// forward ends the walk at a cluster: with its endpoints, or for lack of any.
func (x *run) forward(cluster string, criteria *corev3.Metadata) error {
	x.out.Cluster = cluster
	c := x.config.clusters[cluster]
	if c == nil {
		x.end(Closed, "there is no cluster %q", cluster)
		return nil
	}
	x.out.Forward = x.req
	es, why, err := x.endpoints(c, criteria)
	if err != nil {
		return err
	}
	if len(es) > 0 {
		x.out.Endpoints = es
		x.end(Forwarded, "")
		return nil
	}
	if x.out.http {
		x.answer(503, "no endpoint of cluster %q: %s", cluster, why)
		return nil
	}
	x.end(Closed, "no endpoint of cluster %q: %s", cluster, why)
	return nil
}

// endpoints of a cluster that may be picked, and why there are none.
func (x *run) endpoints(c *clusterv3.Cluster, criteria *corev3.Metadata) ([]Endpoint, string, error) {
	switch kind := c.GetClusterType().GetName(); kind {
	case "":
	case "envoy.clusters.dynamic_forward_proxy":
		if x.dynamic == nil && x.out.http {
			x.dynamicHost() // the cluster resolves what no filter has
		}
		if x.dynamic == nil {
			return nil, "nothing says which host", nil
		}
		conf, _, err := unpack(c.GetClusterType().GetTypedConfig(), &dfpv3.ClusterConfig{})
		if err != nil {
			return nil, "", err
		}
		e := x.dynamic.reached(c.GetTransportSocket().GetTypedConfig().MessageIs(&tlsv3.UpstreamTlsContext{}))
		e.never = conf.GetDnsCacheConfig().GetResolvedAddressFilter()
		return []Endpoint{e}, "", nil
	case "envoy.cluster.dns", "envoy.clusters.dns":
	default:
		return nil, "", notModelled("cluster type %s", kind)
	}
	var a *endpointv3.ClusterLoadAssignment
	switch c.GetType() {
	case clusterv3.Cluster_ORIGINAL_DST:
		return x.originalDst(c)
	case clusterv3.Cluster_EDS:
		name := c.GetEdsClusterConfig().GetServiceName()
		if name == "" {
			name = c.Name
		}
		if a = x.config.assignments[name]; a == nil {
			return nil, fmt.Sprintf("there is no assignment %q", name), nil
		}
	default:
		a = c.GetLoadAssignment()
	}
	threshold := float64(panicThreshold)
	if p := c.GetCommonLbConfig().GetHealthyPanicThreshold(); p != nil {
		threshold = p.GetValue()
	}
	es, why := pick(a, subset(c, criteria), threshold)
	return es, why, nil
}

// originalDst goes where the client wanted to go.
func (x *run) originalDst(c *clusterv3.Cluster) ([]Endpoint, string, error) {
	conf := c.GetOriginalDstLbConfig()
	to := x.conn.destination
	if conf.GetUseHttpHeader() {
		name := conf.GetHttpHeaderName()
		if name == "" {
			name = "x-envoy-original-dst-host"
		}
		at, err := netip.ParseAddrPort(x.req.first(name))
		if err != nil {
			return nil, fmt.Sprintf("header %s holds no address", name), nil
		}
		to = at
	}
	if conf.GetMetadataKey() != nil {
		return nil, "", notModelled("an original destination in metadata")
	}
	if p := conf.GetUpstreamPortOverride(); p != nil {
		to = netip.AddrPortFrom(to.Addr(), uint16(p.GetValue()))
	}
	if !x.restored && !conf.GetUseHttpHeader() {
		return nil, "the connection was not redirected", nil
	}
	return []Endpoint{{Address: to}}, "", nil
}

// subset is the filter that subset load balancing lays over endpoints; nil for none.
func subset(c *clusterv3.Cluster, criteria *corev3.Metadata) func(*endpointv3.LbEndpoint) bool {
	conf := c.GetLbSubsetConfig()
	wanted := criteria.GetFilterMetadata()["envoy.lb"].GetFields()
	if len(conf.GetSubsetSelectors()) == 0 {
		return nil
	}
	keys := slices.Sorted(maps.Keys(wanted))
	known := slices.ContainsFunc(conf.GetSubsetSelectors(), func(s *clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector) bool {
		return slices.Equal(slices.Sorted(slices.Values(s.GetKeys())), keys)
	})
	in := func(fields map[string]*structpb.Value) func(*endpointv3.LbEndpoint) bool {
		return func(e *endpointv3.LbEndpoint) bool {
			have := e.GetMetadata().GetFilterMetadata()["envoy.lb"].GetFields()
			for k, v := range fields {
				if have[k].AsInterface() != v.AsInterface() {
					return false
				}
			}
			return true
		}
	}
	if known && len(wanted) > 0 && slices.ContainsFunc(all(c), in(wanted)) {
		return in(wanted)
	}
	switch conf.GetFallbackPolicy() {
	case clusterv3.Cluster_LbSubsetConfig_ANY_ENDPOINT:
		return nil
	case clusterv3.Cluster_LbSubsetConfig_DEFAULT_SUBSET:
		return in(conf.GetDefaultSubset().GetFields())
	}
	return func(*endpointv3.LbEndpoint) bool { return false }
}

func all(c *clusterv3.Cluster) []*endpointv3.LbEndpoint {
	var out []*endpointv3.LbEndpoint
	for _, l := range c.GetLoadAssignment().GetEndpoints() {
		out = append(out, l.GetLbEndpoints()...)
	}
	return out
}

// Envoy's defaults: a priority counts as whole while 1/1.4 of it is healthy, and
// health counts while half of the endpoints are healthy.
const (
	overprovisioning = 140
	panicThreshold   = 50
)

// pick lists the endpoints of the priorities that get any share of the load, and
// says why there are none.
func pick(a *endpointv3.ClusterLoadAssignment, in func(*endpointv3.LbEndpoint) bool, threshold float64) ([]Endpoint, string) {
	factor := uint64(overprovisioning)
	if f := a.GetPolicy().GetOverprovisioningFactor(); f != nil {
		factor = uint64(f.GetValue())
	}
	levels := byPriority(a, in)
	left, count := uint64(100), 0
	var healthy, panicking []Endpoint
	for _, l := range levels {
		count += len(l.all)
		if len(l.all) == 0 || left == 0 {
			continue
		}
		load := min(left, uint64(len(l.healthy))*factor/uint64(len(l.all)))
		left -= load
		if load > 0 {
			healthy = append(healthy, l.healthy...)
		}
		if float64(len(l.healthy)*100)/float64(len(l.all)) < threshold {
			panicking = append(panicking, l.all...)
		} else if load > 0 {
			panicking = append(panicking, l.healthy...)
		}
	}
	switch {
	case count == 0:
		return nil, "it is empty"
	case left == 0:
		return healthy, ""
	}
	return panicking, "none is healthy"
}

type level struct{ all, healthy []Endpoint }

func byPriority(a *endpointv3.ClusterLoadAssignment, in func(*endpointv3.LbEndpoint) bool) []level {
	var out []level
	for _, l := range a.GetEndpoints() {
		for len(out) <= int(l.GetPriority()) {
			out = append(out, level{})
		}
		at := &out[l.GetPriority()]
		for _, e := range l.GetLbEndpoints() {
			if in != nil && !in(e) {
				continue
			}
			at.all = append(at.all, endpointOf(e))
			switch e.GetHealthStatus() {
			case corev3.HealthStatus_UNKNOWN, corev3.HealthStatus_HEALTHY, corev3.HealthStatus_DEGRADED:
				at.healthy = append(at.healthy, endpointOf(e))
			}
		}
	}
	return out
}

func endpointOf(e *endpointv3.LbEndpoint) Endpoint {
	out := Endpoint{hostname: e.GetEndpoint().GetHostname(), match: e.GetMetadata().GetFilterMetadata()[socketMatch]}
	switch a := e.GetEndpoint().GetAddress().GetAddress().(type) {
	case *corev3.Address_SocketAddress:
		s := a.SocketAddress
		if ip, err := netip.ParseAddr(strings.Trim(s.GetAddress(), "[]")); err == nil {
			out.Address = netip.AddrPortFrom(ip, uint16(s.GetPortValue()))
		} else {
			out.Name, out.Port = s.GetAddress(), uint16(s.GetPortValue())
		}
	case *corev3.Address_EnvoyInternalAddress:
		out.Internal = a.EnvoyInternalAddress.GetServerListenerName()
	case *corev3.Address_Pipe:
		out.Path = a.Pipe.GetPath()
	}
	return out
}

// socketMatch is the key of endpoint metadata by which a transport is chosen.
const socketMatch = "envoy.transport_socket_match"
