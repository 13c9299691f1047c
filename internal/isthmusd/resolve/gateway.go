// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"cmp"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// server is one server of a Gateway object that means the proxy.
type server struct {
	gw   *model.Gateway
	spec *networking.Server
	// port that the proxy listens on: the target of the gateway Service's port.
	port uint32
}

func (s server) gateway() string { return s.gw.Namespace + "/" + s.gw.Name }

// protocol in upper case; Istio lets people write it as they like.
func (s server) protocol() string { return strings.ToUpper(s.spec.GetPort().GetProtocol()) }

func (s server) isHTTP() bool {
	switch s.protocol() {
	case "HTTP", "HTTP2", "GRPC", "HTTP-WEB", "GRPC-WEB", "HTTP_PROXY":
		return true
	}
	return false
}

func (s server) mode() networking.ServerTLSSettings_TLSmode { return s.spec.GetTls().GetMode() }

func (s server) terminates() bool {
	return s.spec.GetTls() != nil && s.mode() != networking.ServerTLSSettings_PASSTHROUGH &&
		s.mode() != networking.ServerTLSSettings_AUTO_PASSTHROUGH
}

func (s server) isHTTPS() bool { return s.protocol() == "HTTPS" && s.terminates() }

func (s server) isPassthrough() bool {
	return (s.protocol() == "HTTPS" || s.protocol() == "TLS") && s.spec.GetTls() != nil &&
		s.mode() == networking.ServerTLSSettings_PASSTHROUGH
}

// routeName is the name of the server's route table, "" if it has none.
func (s server) routeName() string {
	switch {
	case s.isHTTP():
		return "http." + portString(s.port)
	case s.isHTTPS():
		p := s.spec.GetPort()
		return strings.Join([]string{"https", portString(p.GetNumber()), p.GetName(), s.gw.Name, s.gw.Namespace}, ".")
	}
	return ""
}

// hosts of the server without their namespaces, lower case.
func (s server) hosts() []string {
	out := make([]string, len(s.spec.GetHosts()))
	for i, h := range s.spec.GetHosts() {
		_, host, ok := strings.Cut(h, "/")
		if !ok {
			host = h
		}
		out[i] = strings.ToLower(host)
	}
	return out
}

// admits tells whether one of the server's hosts lets a VirtualService of that
// namespace in with the host, and under which domain: the narrower of the two.
func (s server) admits(namespace, host string) []string {
	var out []string
	for _, h := range s.spec.GetHosts() {
		ns, own, ok := strings.Cut(h, "/")
		if !ok {
			ns, own = "*", h
		}
		if ns == "." {
			ns = s.gw.Namespace
		}
		own = strings.ToLower(own)
		switch {
		case ns != "*" && ns != namespace:
		case covers(own, host):
			out = append(out, host)
		case covers(host, own):
			out = append(out, own)
		}
	}
	return out
}

// servers lists what Gateway objects ask of the proxy, oldest object first.
func servers(v *snapshot.View) []server {
	var out []server
	targets := gatewayTargets(v)
	for _, gw := range v.Gateways() {
		if !v.ProxyMatches(gw.Spec.GetSelector()) {
			continue
		}
		for _, spec := range gw.Spec.GetServers() {
			n := spec.GetPort().GetNumber()
			port, ok := targets[n]
			if !ok {
				port = n
			}
			if port != 0 && !gatewayReserved(port) {
				out = append(out, server{gw, spec, port})
			}
		}
	}
	return out
}

// gatewayReserved ports are the agent's and Envoy's own in a gateway pod.
func gatewayReserved(port uint32) bool {
	return port == 15000 || port == 15020 || port == 15021 || port == 15090
}

// gatewayTargets maps the ports of the Services in front of the proxy to the
// proxy's own.
func gatewayTargets(v *snapshot.View) map[uint32]uint32 {
	out := map[uint32]uint32{}
	for _, svc := range v.ServicesSelectingProxy() {
		for _, p := range tcpPorts(svc) {
			if _, ok := out[p.Number]; ok {
				continue
			}
			if t := targetPorts(v, svc, p); len(t) > 0 {
				out[p.Number] = t[0]
			}
		}
	}
	return out
}

// GatewayListeners lists a gateway's listeners: one per port.
func GatewayListeners(v *snapshot.View) []string {
	var out []string
	for _, s := range servers(v) {
		if l := gatewayListener(v, s.port); l != nil {
			out = append(out, l.Name)
		}
	}
	slices.Sort(out)
	return append(slices.Compact(out), gatewayDynamics(v)...)
}

// GatewayListener resolves a gateway's listener, or nil.
func GatewayListener(v *snapshot.View, name string) *ir.Listener {
	if strings.HasPrefix(name, dynamicPrefix) {
		return dynamicListener(newScope(v), name)
	}
	ip, port, ok := parseListener(name)
	if !ok || ip != wildcardIP(v) {
		return nil
	}
	return gatewayListener(v, port)
}

func gatewayListener(v *snapshot.View, port uint32) *ir.Listener {
	b := gatewayBuilder{s: newScope(v), taken: claims{}}
	for _, s := range servers(v) {
		if s.port == port {
			b.add(s)
		}
	}
	if len(b.chains) == 0 && b.plain == nil {
		return nil
	}
	l := &ir.Listener{
		Name:      listenerName(wildcardIP(v), port),
		Addresses: wildcardAddresses(v, port),
		Direction: ir.Outbound,
		Exposed:   true,
		Chains:    b.chains,
		AccessLog: refusedLog(v),
	}
	if len(b.chains) > 0 {
		l.Inspect = ir.Inspection{TLS: true, Timeout: detectionTimeout(v)}
		if b.plain != nil {
			b.plain.Match.Transport = ir.TransportPlain
		}
	}
	if b.plain != nil {
		l.Chains = append(l.Chains, *b.plain)
	}
	return l
}

// gatewayBuilder merges the servers of one port: plaintext to one chain, TLS to
// a chain per set of names. Of two claims to a name, the oldest Gateway's counts.
type gatewayBuilder struct {
	s      *scope
	chains []ir.Chain
	plain  *ir.Chain
	taken  claims
}

func (b *gatewayBuilder) add(s server) {
	switch {
	case s.isHTTP():
		b.addPlain(ir.Chain{Name: s.routeName(), HTTP: gatewayHTTP(b.s.v, s)})
	case s.isHTTPS():
		b.addTLS(s, ir.Chain{Name: s.routeName(), HTTP: gatewayHTTP(b.s.v, s)})
	case s.isPassthrough():
		for _, c := range b.l4(s, (*routing).tls) {
			b.claim(c)
		}
	case s.terminates():
		if c, ok := unconditional(b.l4(s, (*routing).tcp)); ok {
			b.addTLS(s, c)
		}
	case s.protocol() == "TCP" || s.protocol() == "MONGO" || s.protocol() == "MYSQL" || s.protocol() == "REDIS":
		if c, ok := unconditional(b.l4(s, (*routing).tcp)); ok {
			b.addPlain(c)
		}
	}
}

func (b *gatewayBuilder) addPlain(c ir.Chain) {
	if b.plain == nil {
		b.plain = &c
	}
}

func (b *gatewayBuilder) addTLS(s server, c ir.Chain) {
	c.TLS = serverTLS(b.s, s, c.HTTP != nil)
	if c.TLS == nil {
		return
	}
	c.Match = ir.Match{ServerNames: serverNames(s.hosts())}
	b.claim(c)
}

// claim keeps what no older server has of a chain's names.
func (b *gatewayBuilder) claim(c ir.Chain) {
	if slices.Contains(c.Match.ServerNames, "*") {
		c.Match.ServerNames = nil
		c.Match.Transport = ir.TransportTLS
		if len(b.taken.take([]string{"*"})) > 0 {
			b.chains = append(b.chains, c)
		}
		return
	}
	c.Match.ServerNames = b.taken.take(c.Match.ServerNames)
	if len(c.Match.ServerNames) > 0 {
		b.chains = append(b.chains, c)
	}
}

// l4 collects the TCP or TLS routes of the VirtualServices bound to a server. A
// server name counts only below a host that the VirtualService has there: what
// the server leaves to another namespace is not to be had by naming it in a match.
func (b *gatewayBuilder) l4(s server, chains func(*routing, *model.VirtualService) []ir.Chain) []ir.Chain {
	var out []ir.Chain
	r := gatewayRouting(b.s, s)
	for _, vs := range boundTo(b.s, s) {
		for _, c := range chains(r, vs.vs) {
			c.Match.ServerNames = slices.DeleteFunc(slices.Clone(c.Match.ServerNames), func(n string) bool {
				return !slices.ContainsFunc(vs.domains, func(d string) bool { return covers(d, strings.ToLower(n)) })
			})
			out = append(out, c)
		}
	}
	return out
}

func gatewayHTTP(v *snapshot.View, s server) *ir.HTTP {
	return &ir.HTTP{
		StatPrefix: "outbound_" + listenerName(wildcardIP(v), s.port),
		RouteName:  s.routeName(),
		Edge:       ir.FromOutside,
		AccessLog:  accessLog(v),
		Hops:       v.Mesh().GetDefaultConfig().GetGatewayTopology().GetNumTrustedProxies(),
	}
}

func gatewayRouting(s *scope, srv server) *routing {
	return &routing{s: s, port: srv.spec.GetPort().GetNumber(), gateways: []string{srv.gateway()}}
}

// binding is a VirtualService on a server, with the domains that it gets there.
type binding struct {
	vs      *model.VirtualService
	domains []string
}

// boundTo lists the VirtualServices that name the server's gateway and whose
// hosts it admits, oldest first.
func boundTo(s *scope, srv server) []binding {
	var out []binding
	r := gatewayRouting(s, srv)
	domain := s.v.Config().ClusterDomain
	for _, vs := range s.v.VirtualServices() {
		if !r.binds(vs) || !s.seesVirtualService(vs) {
			continue
		}
		b := binding{vs: vs}
		for _, h := range vs.Spec.GetHosts() {
			b.domains = append(b.domains, srv.admits(vs.Namespace, fullName(h, vs.Namespace, domain))...)
		}
		slices.SortFunc(b.domains, func(x, y string) int { return cmp.Compare(x, y) })
		if b.domains = slices.Compact(b.domains); len(b.domains) > 0 {
			out = append(out, b)
		}
	}
	return out
}
