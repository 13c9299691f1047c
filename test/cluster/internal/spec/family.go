// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"fmt"
	"strings"
)

// The settings of IPFamily. Those of a dual cluster prefer IPv4 where there is a
// choice, and the API server, DNS and load balancers have IPv4 addresses in both.
const (
	IPv4 = "ipv4"
	Dual = "dual"
)

// Net is a cluster's network in one IP family.
type Net struct {
	Router    string // address of the outside on the nodes' network
	Bits      int    // length of the prefix of that network
	All       string // every address there is
	Pods      string // of all nodes
	Services  string
	Balancers string // empty for IPv6
}

// Beyond are the networks of what is reached by way of nodes and is no pod.
func (n Net) Beyond() []string {
	if n.Balancers == "" {
		return []string{n.Services}
	}
	return []string{n.Services, n.Balancers}
}

// Nets are one or two, IPv4 first.
func (c Cluster) Nets() []Net {
	nets := []Net{{
		Router: c.RouterIP(), Bits: 24, All: "0.0.0.0/0", Pods: c.PodCIDR(), Services: c.ServiceCIDR(), Balancers: c.LoadBalancerCIDR(),
	}}
	if c.IPFamily == Dual {
		nets = append(nets, Net{
			Router: fmt.Sprintf("fd00:88:%x::fe", c.Index), Bits: 64, All: "::/0",
			Pods: fmt.Sprintf("fd00:244:%x::/48", c.Index), Services: fmt.Sprintf("fd00:96:%x::/112", c.Index),
		})
	}
	return nets
}

// NodeNet is a node's part in one of the cluster's networks.
type NodeNet struct {
	Net
	IP   string // the node's own
	Pods string // of this node
}

// Nets are the node's parts in the cluster's networks, in the same order.
func (n Node) Nets() []NodeNet {
	var nets []NodeNet
	for i, net := range n.Cluster.Nets() {
		part := NodeNet{Net: net, IP: n.IP(), Pods: n.PodSubnet()}
		if i > 0 {
			part.IP = fmt.Sprintf("fd00:88:%x::%x", n.Index, n.Number)
			part.Pods = fmt.Sprintf("fd00:244:%x:%x::/64", n.Index, n.Number-1)
		}
		nets = append(nets, part)
	}
	return nets
}

// IPs are the node's addresses.
func (n Node) IPs() []string { return each(n.Nets(), func(n NodeNet) string { return n.IP }) }

// PodSubnets are the networks of this node's pods.
func (n Node) PodSubnets() []string { return each(n.Nets(), func(n NodeNet) string { return n.Pods }) }

// PodCIDRs are the networks of all pods, as Kubernetes' flags take them.
func (c Cluster) PodCIDRs() string {
	return strings.Join(each(c.Nets(), func(n Net) string { return n.Pods }), ",")
}

// ServiceCIDRs are the networks of cluster IPs, as Kubernetes' flags take them.
func (c Cluster) ServiceCIDRs() string {
	return strings.Join(each(c.Nets(), func(n Net) string { return n.Services }), ",")
}

// DNSServiceIPs are the cluster IPs of the cluster's DNS.
func (c Cluster) DNSServiceIPs() []string {
	ips := []string{c.DNSServiceIP()}
	if c.IPFamily == Dual {
		ips = append(ips, fmt.Sprintf("fd00:96:%x::a", c.Index))
	}
	return ips
}

func each[T any](all []T, f func(T) string) []string {
	var found []string
	for _, a := range all {
		found = append(found, f(a))
	}
	return found
}
