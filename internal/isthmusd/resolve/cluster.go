// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

// fixedClusters are the same for every proxy.
func fixedClusters() []string { return []string{blackHoleCluster, passthroughCluster} }

func fixedCluster(s *scope, name string) *ir.Cluster {
	switch name {
	case blackHoleCluster:
		return &ir.Cluster{Name: name, Discovery: ir.Static}
	case passthroughCluster:
		return &ir.Cluster{
			Name: name, Discovery: ir.OriginalDst, Protocol: ir.SameAsClient, Balance: ir.Balance{Policy: ir.Chosen},
		}
	}
	return nil
}

// outboundClusters lists a cluster per port and subset of every visible service.
func outboundClusters(s *scope) []string {
	var names []string
	for _, svc := range s.services() {
		subsets := append([]string{""}, s.subsets(svc)...)
		for _, p := range tcpPorts(svc) {
			for _, sub := range subsets {
				names = append(names, outboundCluster(p.Number, sub, svc.Host))
			}
		}
	}
	return names
}

// destination is a port of a service, with the policy for it.
type destination struct {
	key    subsetKey
	svc    *model.Service // where the endpoints are: an alias's target
	port   model.Port
	policy trafficPolicy
}

func (s *scope) destination(k subsetKey) (destination, bool) {
	svc := s.service(k.host)
	if svc == nil {
		return destination{}, false
	}
	p, ok := svc.PortNumber(k.port)
	if !ok || p.Protocol == model.UDP || p.Protocol == model.Unused {
		return destination{}, false
	}
	d := destination{key: k, svc: svc, port: p, policy: s.policy(k)}
	if target := s.aliased(svc, k.port); target != nil {
		d.svc = target
		d.key.host = target.Host
	}
	return d, d.policy.found
}

// aliased is the registered service that an ExternalName Service means, or nil.
func (s *scope) aliased(svc *model.Service, port uint32) *model.Service {
	if svc.ExternalName == "" || svc.ExternalName == svc.Host {
		return nil
	}
	target := s.service(svc.ExternalName)
	if target == nil || target.ExternalName != "" {
		return nil
	}
	if _, ok := target.PortNumber(port); !ok {
		return nil
	}
	return target
}

// outbound resolves the cluster of a destination. Its name does not tell how it
// is reached; its type and endpoints do.
func outbound(s *scope, k subsetKey) *ir.Cluster {
	d, ok := s.destination(k)
	if !ok {
		return nil
	}
	c := &ir.Cluster{
		Name:     outboundCluster(k.port, k.subset, k.host),
		Protocol: upstreamProtocol(d.port.Protocol),
		Services: []ir.ServiceRef{serviceRef(d.svc)},
	}
	if d.policy.rule != nil {
		c.Config = kindPath(d.policy.rule.Meta, networkingGroup)
	}
	switch {
	case !via(s, d.svc):
	case tunnelled(d.svc, d.port):
		intoTunnel(s, c)
		return c
	default:
		throughGateway(s, c, d)
		return c
	}
	s.reach(c, d)
	if c.Tunnelled {
		return c // the listener behind has a cluster for the policy
	}
	s.applyPolicy(c, d)
	s.secure(c, d)
	if c.Discovery == ir.Dynamic {
		c.Balance = ir.Balance{Policy: ir.Chosen}
		c.Asked = s.askedFor(c, d)
	}
	if !credentialsPresent(s, c) {
		return nil
	}
	return c
}

// reach sets how a cluster finds its endpoints. An ExternalName Service is not a
// registration: where only registered hosts may be called, it leads nowhere.
func (s *scope) reach(c *ir.Cluster, d destination) {
	if d.svc.ExternalName != "" && s.registryOnly() {
		c.Discovery = ir.Static
		return
	}
	c.Discovery = s.discovery(d)
	switch c.Discovery {
	case ir.EDS:
		c.Assignment = outboundCluster(d.key.port, d.key.subset, d.key.host)
	case ir.OriginalDst:
		c.Balance.Policy = ir.Chosen
	case ir.Dynamic:
		s.lookUp(c, d)
	case ir.StrictDNS, ir.LogicalDNS:
		c.Family = family(s.v)
		c.Localities = dnsEndpoints(s.v, d, s.bounds)
		if len(c.Localities) == 0 {
			c.Discovery = ir.Static
		}
		c.Outside = s.router && len(c.Localities) > 0
	}
}

// discovery says how a destination's endpoints are found: none, for one that is
// out of bounds. A gateway has no
// original destination to go to: for it headless services are balanced.
func (s *scope) discovery(d destination) ir.Discovery {
	if s.bounds.refuses(d) {
		return ir.Static
	}
	if d.svc.ExternalName != "" {
		return ir.StrictDNS
	}
	switch {
	case s.router && d.svc.Headless:
		return ir.EDS
	case s.resolvedHere(d.svc):
		return ir.StrictDNS
	case s.router && d.svc.Resolution == model.Passthrough:
		return ir.Static // nobody has dialled an address of it
	case !s.router && followsClient(d):
		return ir.OriginalDst
	case lookedUp(d.svc):
		return ir.Dynamic
	case d.svc.Resolution == model.DNS, d.svc.Resolution == model.DynamicDNS:
		return ir.StrictDNS
	case d.svc.Resolution == model.DNSRoundRobin:
		return ir.LogicalDNS
	}
	return ir.EDS
}

func serviceRef(s *model.Service) ir.ServiceRef {
	name := s.Name
	if name == "" {
		name = s.Host
	}
	return ir.ServiceRef{Host: s.Host, Name: name, Namespace: s.Namespace}
}

func upstreamProtocol(p model.Protocol) ir.UpstreamProtocol {
	switch p {
	case model.HTTP:
		return ir.HTTP1
	case model.HTTP2, model.GRPC:
		return ir.HTTP2
	case model.Auto:
		return ir.SameAsClient
	}
	return ir.Bytes
}
