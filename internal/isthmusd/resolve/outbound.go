// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

func portString(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// outboundListeners lists the listeners of what the application calls: one for
// everything, one per port, one per virtual address whose traffic names no host.
func outboundListeners(s *scope) []string {
	names := []string{virtualOutbound}
	for _, svc := range s.services() {
		for _, p := range tcpPorts(svc) {
			if reserved(p.Number) || !s.importedOn(svc.Namespace, svc.Host, p.Number) {
				continue
			}
			if ip, ok := ownAddress(s.v, svc, p); ok {
				names = append(names, listenerName(ip, p.Number))
				continue
			}
			names = append(names, listenerName(wildcardIP(s.v), p.Number))
		}
	}
	return names
}

// reserved ports are the proxy's own: a listener for them would shadow it.
func reserved(port uint32) bool { return port == outboundPort || port == inboundPort }

// ownAddress tells whether a port has a listener of its own on the service's
// virtual address, and on which. HTTP needs none: requests name their host.
func ownAddress(v *snapshot.View, s *model.Service, p model.Port) (string, bool) {
	if p.Protocol.IsHTTP() || s.Headless {
		return "", false
	}
	ips := virtualIPs(v, s)
	if len(ips) == 0 {
		return "", false
	}
	return ips[0].String(), true
}

// virtualIPs are the single addresses of the families that the proxy has.
func virtualIPs(v *snapshot.View, s *model.Service) []netip.Addr {
	var out []netip.Addr
	for _, a := range s.Addresses {
		if a.IsSingleIP() && usable(v, a.Addr()) {
			out = append(out, a.Addr())
		}
	}
	return out
}

func usable(v *snapshot.View, a netip.Addr) bool {
	if a.Is4() {
		return v.IPv4()
	}
	return v.IPv6()
}

// catchAll takes every connection of the application and passes it to the
// listener that knows its destination.
func catchAll(s *scope) *ir.Listener {
	def := ir.Chain{Name: "virtualOutbound-catchall-tcp", TCP: tcpTo(s.v, s.fallthroughCluster())}
	return &ir.Listener{
		Name:      virtualOutbound,
		Addresses: wildcardAddresses(s.v, outboundPort),
		Direction: ir.Outbound,
		HandOver:  true,
		Chains: []ir.Chain{{
			Name:  "virtualOutbound-blackhole",
			Match: ir.Match{Port: outboundPort},
			TCP:   tcpTo(s.v, blackHoleCluster),
		}},
		Default:   &def,
		AccessLog: refusedLog(s.v),
	}
}

// addressListener serves the ports of the service that owns a virtual address.
func addressListener(s *scope, ip netip.Addr, port uint32) *ir.Listener {
	claimants := s.only(s.v.ServicesByAddress(ip.String()))
	slices.SortStableFunc(claimants, func(a, b *model.Service) int { return kindRank(a) - kindRank(b) })
	for _, svc := range claimants {
		p, ok := svc.PortNumber(port)
		if !ok || !s.importedOn(svc.Namespace, svc.Host, port) {
			continue
		}
		if own, ok := ownAddress(s.v, svc, p); !ok || own != ip.String() {
			continue
		}
		return ownListener(s, svc, p)
	}
	return nil
}

func ownListener(s *scope, svc *model.Service, p model.Port) *ir.Listener {
	ips := virtualIPs(s.v, svc)
	l := &ir.Listener{
		Name:      listenerName(ips[0].String(), p.Number),
		Direction: ir.Outbound,
		Binding:   ir.Virtual,
	}
	for _, ip := range ips {
		l.Addresses = append(l.Addresses, ir.Address{IP: ip.String(), Port: p.Number})
	}
	if p.Protocol == model.Auto {
		l.Inspect = ir.Inspection{TLS: true, HTTP: true, Timeout: detectionTimeout(s.v)}
		l.Chains = detectedChains(s, l.Name, svc, p)
	}
	if p.Protocol.IsTLS() {
		l.Chains = claims{}.distinct(sniChains(s, svc, p))
		if len(l.Chains) > 0 {
			l.Inspect = ir.Inspection{TLS: true, Timeout: detectionTimeout(s.v)}
		}
	}
	tcp := tcpChain(s, svc, p)
	l.Default = &tcp
	return l
}

// portListener serves all destinations of a port that have no listener of
// their own: HTTP by host, TLS by SNI, TCP by address, the rest by policy.
func portListener(s *scope, port uint32) *ir.Listener {
	l := &ir.Listener{
		Name:      listenerName(wildcardIP(s.v), port),
		Addresses: wildcardAddresses(s.v, port),
		Direction: ir.Outbound,
		Binding:   ir.Virtual,
		Default:   &ir.Chain{Name: "PassthroughFilterChain", TCP: tcpTo(s.v, s.fallthroughCluster())},
	}
	b := portBuilder{s: s, l: l, names: claims{}, claimed: claims{}}
	for _, svc := range s.onPort(port) {
		if p, ok := svc.PortNumber(port); ok && p.Protocol != model.UDP && p.Protocol != model.Unused {
			if _, own := ownAddress(s.v, svc, p); !own {
				b.add(svc, p)
			}
		}
	}
	if !b.used {
		return nil
	}
	if b.http {
		l.Chains = append([]ir.Chain{httpChain(s, l.Name, s.tableName(port))}, l.Chains...)
	}
	b.chooseByAddress()
	if b.http || b.tls {
		l.Inspect = ir.Inspection{TLS: true, HTTP: b.http, Timeout: detectionTimeout(s.v)}
	}
	return l
}

// portBuilder merges the services of one port.
type portBuilder struct {
	s               *scope
	l               *ir.Listener
	used, http, tls bool
	fallback        bool
	names, claimed  claims // server names and ranges, each for the oldest service
}

// chooseByAddress takes addresses out of the chains where nothing else tells
// them apart: endpoints of a headless service come and go, and a chain whose own
// condition changes loses its connections.
func (b *portBuilder) chooseByAddress() {
	if b.http || b.tls {
		return
	}
	for i := range b.l.Chains {
		c := &b.l.Chains[i]
		b.l.ByAddress = append(b.l.ByAddress, ir.AddressChoice{Ranges: c.Match.Ranges, Chain: c.Name})
		c.Match = ir.Match{}
	}
}

func (b *portBuilder) add(svc *model.Service, p model.Port) {
	b.used = true
	switch {
	case p.Protocol.IsHTTP():
		b.http = true
	case p.Protocol.IsTLS() && !svc.Headless:
		b.addTLS(svc, p)
	default:
		b.http = b.http || p.Protocol == model.Auto
		b.addTCP(svc, p)
	}
}

func (b *portBuilder) addTLS(svc *model.Service, p model.Port) {
	chains := sniChains(b.s, svc, p)
	if len(chains) == 0 {
		c := tcpChain(b.s, svc, p)
		c.Match.ServerNames = serverNames([]string{svc.Host})
		chains = []ir.Chain{c}
	}
	for _, c := range b.names.distinct(chains) {
		b.tls = true
		b.l.Chains = append(b.l.Chains, c)
	}
}

// addTCP matches by address; a service without any gets what is left of the port.
func (b *portBuilder) addTCP(svc *model.Service, p model.Port) {
	ranges := tcpRanges(b.s.v, svc)
	c := tcpChain(b.s, svc, p)
	c.Name = outboundCluster(p.Number, "", svc.Host)
	if len(ranges) == 0 {
		if !svc.Headless && !b.fallback {
			b.fallback = true
			b.l.Default = &c
		}
		return
	}
	for _, r := range ranges {
		if key := r.String(); !b.claimed[key] {
			b.claimed[key] = true
			c.Match.Ranges = append(c.Match.Ranges, r)
		}
	}
	if len(c.Match.Ranges) > 0 {
		b.l.Chains = append(b.l.Chains, c)
	}
}

// tcpRanges are the addresses that mean a service without a listener of its
// own: the ranges of an entry, the endpoints of a headless service.
func tcpRanges(v *snapshot.View, svc *model.Service) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range svc.Addresses {
		if usable(v, a.Addr()) {
			out = append(out, a)
		}
	}
	if !svc.Headless {
		return out
	}
	for _, a := range v.Summary(svc.ServiceKey).Addresses {
		if ip, err := netip.ParseAddr(a); err == nil && usable(v, ip) {
			out = append(out, netip.PrefixFrom(ip, ip.BitLen()))
		}
	}
	return out
}

// httpChain takes what inspection finds to be plaintext HTTP.
func httpChain(s *scope, listener, route string) ir.Chain {
	return ir.Chain{
		Name:  "http",
		Match: ir.Match{Transport: ir.TransportPlain, ALPN: alpnPlain()},
		HTTP: &ir.HTTP{
			StatPrefix: "outbound_" + listener,
			RouteName:  route,
			Edge:       ir.FromApplication,
			AccessLog:  accessLog(s.v),
		},
	}
}

// detectedChains are those of a service whose protocol nobody declared. What the
// client speaks is what the upstream must be offered, so that a peer that finds
// the protocol out as well takes the connection for HTTP.
func detectedChains(s *scope, listener string, svc *model.Service, p model.Port) []ir.Chain {
	one := httpChain(s, listener, svc.Host+":"+portString(p.Number))
	two := one
	http := *one.HTTP
	two.HTTP = &http
	one.Name, one.Match.ALPN = "http1", []string{"http/1.0", "http/1.1"}
	two.Name, two.Match.ALPN = "http2", []string{"h2c"}
	one.HTTP.UpstreamALPN, two.HTTP.UpstreamALPN = clientALPN(ir.HTTP1), clientALPN(ir.HTTP2)
	if svc.External {
		one.HTTP.UpstreamALPN, two.HTTP.UpstreamALPN = plainALPN(ir.HTTP1), plainALPN(ir.HTTP2)
	}
	return []ir.Chain{one, two}
}

// tcpChain forwards a port's bytes to its service, or where TCP routes say.
func tcpChain(s *scope, svc *model.Service, p model.Port) ir.Chain {
	r := meshRouting(s, p.Number)
	if vs := r.virtualService(svc.Host); vs != nil {
		if c, ok := unconditional(r.tcp(vs)); ok {
			return c
		}
	}
	k := subsetKey{port: p.Number, host: svc.Host}
	cluster := outboundCluster(k.port, "", k.host)
	return ir.Chain{Name: cluster, KeepDialled: tunnelled(svc, p), TCP: &ir.TCP{
		StatPrefix: cluster, Clusters: one(cluster), AccessLog: accessLog(s.v),
		HashSource:  s.policy(k).loadBalancer.GetConsistentHash().GetUseSourceIp(),
		IdleTimeout: max(s.policy(k).pool.GetTcp().GetIdleTimeout().AsDuration(), 0),
	}}
}

// sniChains are what TLS routes say of a service's port, if anything.
func sniChains(s *scope, svc *model.Service, p model.Port) []ir.Chain {
	r := meshRouting(s, p.Number)
	vs := r.virtualService(svc.Host)
	if vs == nil {
		return nil
	}
	return r.tls(vs)
}

// distinct leaves each server name to the first chain that has it, and a
// chain for all names without a condition on them.
func (taken claims) distinct(chains []ir.Chain) []ir.Chain {
	var out []ir.Chain
	for _, c := range chains {
		c.Match.ServerNames = taken.take(c.Match.ServerNames)
		if len(c.Match.ServerNames) == 0 {
			continue
		}
		if slices.Contains(c.Match.ServerNames, "*") {
			c.Match.ServerNames, c.Match.Transport = nil, ir.TransportTLS
		}
		out = append(out, c)
	}
	return out
}
