// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"net"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// inboundSource is the address that the proxy calls its application from; the
// redirection of the pod lets it through.
const (
	inboundSource   = "127.0.0.6"
	inboundSourceV6 = "::6"
)

// inboundServicePort is one port of the workload that services send to.
type inboundServicePort struct {
	number   uint32
	protocol model.Protocol
	service  *model.Service // nil for what a Sidecar declares
	// endpoint is where a Sidecar sends the port, "" to where it was addressed.
	endpoint string
}

// inboundPorts lists the ports of all services that select the proxy's
// workload, by number. If several services share one, the oldest says what it
// speaks.
func inboundPorts(v *snapshot.View) []inboundServicePort {
	if s := chooseSidecar(v, v.Config().Namespace); s != nil && len(s.Spec.GetIngress()) > 0 {
		return declaredPorts(s.Spec)
	}
	var out []inboundServicePort
	seen := map[uint32]bool{outboundPort: true, inboundPort: true}
	for _, s := range v.ServicesSelectingProxy() {
		for _, p := range tcpPorts(s) {
			for _, n := range targetPorts(v, s, p) {
				if !seen[n] {
					seen[n] = true
					out = append(out, inboundServicePort{number: n, protocol: p.Protocol, service: s})
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b inboundServicePort) int { return int(a.number) - int(b.number) })
	return out
}

// declaredPorts are a Sidecar's own list of what its workload serves: it replaces
// what the services say.
func declaredPorts(spec *networking.Sidecar) []inboundServicePort {
	var out []inboundServicePort
	for _, i := range spec.GetIngress() {
		out = append(out, inboundServicePort{
			number:   i.GetPort().GetNumber(),
			protocol: protocolOf(i.GetPort().GetProtocol()),
			endpoint: i.GetDefaultEndpoint(),
		})
	}
	slices.SortFunc(out, func(a, b inboundServicePort) int { return int(a.number) - int(b.number) })
	return slices.CompactFunc(out, func(a, b inboundServicePort) bool { return a.number == b.number })
}

// protocolOf reads a protocol as people write it in Istio's objects.
func protocolOf(name string) model.Protocol {
	switch p := model.Protocol(strings.ToUpper(name)); p {
	case model.HTTP, model.HTTP2, model.GRPC, model.HTTPS, model.TLS, model.TCP:
		return p
	case "GRPC-WEB":
		return model.GRPC
	case "MONGO", "MYSQL", "REDIS":
		return model.TCP
	}
	return model.Auto
}

// targetPorts finds the number behind a service port. A name that the proxy
// does not know about itself is looked up in all pods of the service.
func targetPorts(v *snapshot.View, s *model.Service, p model.Port) []uint32 {
	if p.TargetPort != 0 {
		return []uint32{p.TargetPort}
	}
	if p.TargetName == "" {
		return []uint32{p.Number}
	}
	if n := v.ProxyPort(p.TargetName); n != 0 {
		return []uint32{n}
	}
	var out []uint32
	for _, w := range v.Workloads(s.Namespace, s.Selector) {
		if n := w.Ports[p.TargetName]; n != 0 && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// inboundListener takes everything that is sent to the workload. It holds no
// address of the pod, so pods of one kind share its bytes.
func inboundListener(v *snapshot.View) *ir.Listener {
	policy := serverMTLS(v, v.ProxyNamespace(), v.ProxyMatches)
	l := &ir.Listener{
		Name:      virtualInbound,
		Addresses: wildcardAddresses(v, inboundPort),
		Direction: ir.Inbound,
		Restore:   true,
		AccessLog: refusedLog(v),
	}
	l.Chains = append(l.Chains, ir.Chain{
		Name:  "virtualInbound-blackhole",
		Match: ir.Match{Port: inboundPort},
		TCP:   tcpTo(v, blackHoleCluster),
	})
	ports := inboundPorts(v)
	known := map[uint32]bool{inboundPort: true}
	for _, p := range ports {
		known[p.number] = true
		l.Chains = append(l.Chains, inboundChains(v, servedPort(p), policy.on(p.number))...)
	}
	for _, port := range extraPorts(policy, known) {
		l.Chains = append(l.Chains, inboundChains(v, unservedPort(port), policy.on(port))...)
	}
	l.Chains = append(l.Chains, inboundChains(v, unservedPort(0), policy.mode)...)
	l.Inspect = inboundInspection(v, ports)
	return l
}

// extraPorts are those with a mode of their own that no service uses.
func extraPorts(m mtls, known map[uint32]bool) []uint32 {
	var out []uint32
	for port := range m.ports {
		if !known[port] {
			out = append(out, port)
		}
	}
	slices.Sort(out)
	return out
}

// inboundInspection looks for TLS everywhere and for HTTP where nobody said
// what a port speaks.
func inboundInspection(v *snapshot.View, ports []inboundServicePort) ir.Inspection {
	i := ir.Inspection{TLS: true, HTTP: true, Timeout: detectionTimeout(v)}
	for _, p := range ports {
		if p.protocol != model.Auto {
			i.HTTPExcept = append(i.HTTPExcept, p.number)
		}
	}
	return i
}

// inboundTarget is what the chains of one port have in common.
type inboundTarget struct {
	name     string
	port     uint32 // 0: every port that no service uses
	protocol model.Protocol
	cluster  string
}

func servedPort(p inboundServicePort) inboundTarget {
	return inboundTarget{listenerName(anyIPv4, p.number), p.number, p.protocol, inboundCluster(p.number)}
}

func unservedPort(port uint32) inboundTarget {
	return inboundTarget{virtualInbound, port, model.Auto, inboundPassthrough}
}

// inboundChains are the chains of one port under one mode. Plaintext under
// strict finds no chain and is closed.
func inboundChains(v *snapshot.View, t inboundTarget, mode mtlsMode) []ir.Chain {
	c := inboundBuilder{v: v, t: t}
	http, tcp := t.protocol.IsHTTP(), !t.protocol.IsHTTP() && t.protocol != model.Auto
	mesh := ir.Match{Transport: ir.TransportTLS}
	if mode == modePermissive {
		mesh.ALPN = alpnMesh()
	}
	switch {
	case mode == modeDisable:
	case http:
		c.add(mesh, true, meshServerTLS(v.Config(), alpnServer()))
	case tcp:
		c.add(mesh, false, meshServerTLS(v.Config(), nil))
	default:
		c.add(ir.Match{Transport: ir.TransportTLS, ALPN: alpnHTTP()}, true, meshServerTLS(v.Config(), alpnServer()))
		if mode == modePermissive {
			mesh.ALPN = []string{"istio", "istio-peer-exchange"}
		}
		c.add(mesh, false, meshServerTLS(v.Config(), nil))
	}
	if mode == modeStrict {
		return c.chains
	}
	switch {
	case http:
		c.add(ir.Match{Transport: ir.TransportPlain}, true, nil)
	case tcp:
		c.addRest()
	default:
		c.add(ir.Match{Transport: ir.TransportPlain, ALPN: alpnPlain()}, true, nil)
		c.addRest()
	}
	return c.chains
}

type inboundBuilder struct {
	v      *snapshot.View
	t      inboundTarget
	chains []ir.Chain
}

func (b *inboundBuilder) add(m ir.Match, http bool, tls *ir.ServerTLS) {
	m.Port = b.t.port
	c := ir.Chain{Name: b.t.name, Match: m, TLS: tls}
	if !http {
		c.TCP = tcpTo(b.v, b.t.cluster)
		b.chains = append(b.chains, c)
		return
	}
	if b.t.cluster == inboundPassthrough {
		c.Name = "virtualInbound-catchall-http"
	}
	c.HTTP = &ir.HTTP{
		StatPrefix: "inbound_" + listenerName(anyIPv4, b.t.port),
		Routes:     inboundRoutes(b.t),
		Edge:       ir.FromMesh,
		AccessLog:  accessLog(b.v),
	}
	b.chains = append(b.chains, c)
}

// addRest passes on as bytes what no other chain takes. Both transports are named:
// Envoy looks for the most specific transport first and does not come back from
// there, so a chain for any transport is not a fallback beside one for TLS.
func (b *inboundBuilder) addRest() {
	b.add(ir.Match{Transport: ir.TransportPlain}, false, nil)
	b.add(ir.Match{Transport: ir.TransportTLS}, false, nil)
}

func inboundRoutes(t inboundTarget) *ir.RouteConfig {
	port := uint32(80)
	if t.port != 0 {
		port = t.port
	}
	return &ir.RouteConfig{
		Name: t.cluster,
		VirtualHosts: []ir.VirtualHost{{
			Name:    "inbound|http|" + portString(port),
			Domains: []string{"*"},
			Routes: []ir.Route{{Name: "default", Forward: &ir.Forward{
				Clusters: one(t.cluster),
				// An application that closes an idle connection just now has not seen the request.
				Retry: &ir.Retry{On: "reset-before-request", Attempts: 1, IgnorePrevious: true},
			}}},
		}},
	}
}

// inboundClusters lists what the inbound listener may send to.
func inboundClusters(v *snapshot.View) []string {
	out := []string{inboundPassthrough}
	for _, p := range inboundPorts(v) {
		out = append(out, inboundCluster(p.number))
	}
	return out
}

// inbound is the cluster of one port, or of all others for port 0.
func inbound(v *snapshot.View, port uint32) *ir.Cluster {
	c := &ir.Cluster{
		Name:      inboundPassthrough,
		Discovery: ir.OriginalDst,
		Protocol:  ir.SameAsClient,
		Balance:   ir.Balance{Policy: ir.Chosen},
		Sources:   inboundSources(v),
	}
	if port == 0 {
		return c
	}
	for _, p := range inboundPorts(v) {
		if p.number == port {
			c.Name = inboundCluster(port)
			c.Protocol = upstreamProtocol(p.protocol)
			if p.service != nil {
				c.Services = []ir.ServiceRef{serviceRef(p.service)}
			}
			fixEndpoint(c, p.endpoint)
			return c
		}
	}
	return nil
}

// fixEndpoint sends a port to the address that a Sidecar names: "host:port" on
// the workload's own machine, or "unix://path".
func fixEndpoint(c *ir.Cluster, endpoint string) {
	e := ir.Endpoint{Weight: 1}
	if path, ok := strings.CutPrefix(endpoint, "unix://"); ok {
		e.Address, c.Sources = path, nil
	} else {
		host, port, err := net.SplitHostPort(endpoint)
		n, ok := parsePort(port)
		if err != nil || !ok || host == anyIPv4 || host == anyIPv6 {
			return
		}
		e.Address, e.Port = host, n
	}
	c.Discovery, c.Balance = ir.Static, ir.Balance{}
	c.Localities = []ir.Locality{{Endpoints: []ir.Endpoint{e}}}
	if strings.HasPrefix(endpoint, "127.") || strings.HasPrefix(endpoint, "[::1]") {
		c.Sources = nil
	}
}

func inboundSources(v *snapshot.View) []string {
	var out []string
	if v.IPv4() {
		out = append(out, inboundSource)
	}
	if v.IPv6() {
		out = append(out, inboundSourceV6)
	}
	return out
}
