// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"strings"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// peerField ends a line of the egress gateway's default access log.
const peerField = " %DOWNSTREAM_PEER_URI_SAN%\n"

// EgressListeners lists the egress gateway's listeners: the one for sidecars,
// and for each TLS destination one in which the inner server name is checked.
func EgressListeners(v *snapshot.View) []string {
	out := []string{listenerName(wildcardIP(v), egressPort(v))}
	for _, t := range egressTargets(v) {
		if t.behind() {
			out = append(out, t.innerName())
		}
	}
	return out
}

// EgressListener resolves one of them, or nil.
func EgressListener(v *snapshot.View, name string) *ir.Listener {
	if key, ok := strings.CutPrefix(name, innerPrefix); ok {
		t, ok := findTarget(v, key)
		switch {
		case !ok || !t.behind():
			return nil
		case t.tunnelled():
			return dialledListener(t)
		}
		return innerListener(t)
	}
	port := egressPort(v)
	if name != listenerName(wildcardIP(v), port) {
		return nil
	}
	l := &ir.Listener{
		Name:      name,
		Addresses: wildcardAddresses(v, port),
		Direction: ir.Outbound,
		Inspect:   ir.Inspection{TLS: true, Timeout: detectionTimeout(v)},
		AccessLog: refusedLog(v),
	}
	for _, t := range egressTargets(v) {
		l.Chains = append(l.Chains, egressChain(t))
	}
	if len(l.Chains) == 0 {
		// Envoy wants one chain at least. Nobody asks for this name.
		l.Chains = []ir.Chain{{
			Name: blackHoleCluster, Match: ir.Match{ServerNames: []string{"nothing.egress.isthmus"}}, TCP: tcpTo(v, blackHoleCluster),
		}}
	}
	return l
}

// egressChain serves one key. Whoever may not use it is refused with 403 where
// there is HTTP to say so, and by the handshake elsewhere: a server that speaks
// first must not be heard by a caller who has not been checked.
func egressChain(t egressTarget) ir.Chain {
	c := ir.Chain{
		Name:  t.key,
		Match: ir.Match{ServerNames: []string{t.key}, Transport: ir.TransportTLS},
	}
	cfg := t.s.v.Config()
	if t.tunnelled() {
		c.TLS = meshServerTLS(cfg, []string{"h2"})
		c.HTTP = connectHTTP(t)
		return c
	}
	if t.port.Protocol.IsHTTP() {
		c.TLS = meshServerTLS(cfg, alpnServer())
		c.HTTP = egressHTTP(t)
		return c
	}
	c.TLS = meshServerTLS(cfg, nil)
	c.TLS.Client.SANs = callerSANs(t.callers())
	c.Callers = &ir.Callers{StatPrefix: "egress", Principals: t.callers()}
	c.TCP = &ir.TCP{StatPrefix: t.key, Clusters: one(t.key), AccessLog: egressLog(t.s.v), AwaitTLS: true}
	if t.behind() {
		c.KeepPeer = true
		c.TCP.Clusters = one(t.innerName())
	}
	return c
}

func callerSANs(callers []string) []ir.SAN {
	var out []ir.SAN
	for _, c := range callers {
		out = append(out, uriSAN(ir.MatchPrefix, strings.TrimSuffix(c, "*")))
	}
	return out
}

// egressHTTP passes requests on for the target's hosts alone. Timeouts and
// retries are the sidecar's: applied twice they would multiply.
func egressHTTP(t egressTarget) *ir.HTTP {
	vh := ir.VirtualHost{
		Name:           t.svc.Host + ":" + portString(t.port.Number),
		Domains:        t.authorities(),
		NoAttemptCount: true,
		Routes: []ir.Route{{
			Name:    "default",
			Match:   dynamicMatch(t),
			Forward: &ir.Forward{Clusters: one(t.key), Hash: hashPolicies(t.destination().policy.loadBalancer.GetConsistentHash())},
		}},
	}
	h := &ir.HTTP{
		StatPrefix: t.key,
		Edge:       ir.FromSidecar,
		Callers:    &ir.Callers{StatPrefix: "egress", Principals: t.callers()},
		AccessLog:  egressLog(t.s.v),
		Routes: &ir.RouteConfig{Name: t.key, VirtualHosts: []ir.VirtualHost{vh, {
			Name: "block_all", Domains: []string{"*"}, NoAttemptCount: true,
			Routes: []ir.Route{{Name: "block_all", Direct: &ir.Direct{Status: 403}}},
		}}},
	}
	if t.dynamic() {
		cache := dnsCache(t.s.v)
		h.DynamicHost = &cache
		own := &h.Routes.VirtualHosts[0]
		own.Routes = append(own.Routes, ir.Route{Name: "other_port", Direct: &ir.Direct{Status: 403}})
	}
	return h
}

// dynamicMatch keeps a request for a host of a wildcard on the entry's port: the
// host that it names decides where it goes.
func dynamicMatch(t egressTarget) ir.RouteMatch {
	if !t.dynamic() {
		return ir.RouteMatch{}
	}
	port := ":" + portString(t.port.Number)
	if t.port.Number == 80 {
		port = "(:80)?"
	}
	return ir.RouteMatch{Headers: []ir.NamedMatch{{
		Name: ":authority", Match: ir.StringMatch{Kind: ir.MatchRegex, Value: "[^:]+" + port},
	}}}
}

// innerListener sees what the application sent, and lets only the target's names
// through: the server names of its TLS and, where nobody has declared a protocol,
// the hosts of its HTTP. Other bytes carry no name.
func innerListener(t egressTarget) *ir.Listener {
	v := t.s.v
	c := ir.Chain{
		Name:  t.key,
		Match: ir.Match{ServerNames: t.serverNames()},
		TCP:   &ir.TCP{StatPrefix: t.key, Clusters: one(t.key)},
	}
	if t.dynamic() {
		c.DynamicHost = &ir.DynamicHost{Port: endpointPort(model.Endpoint{}, t.port), Cache: dnsCache(v)}
	}
	mismatch := ir.Chain{Name: "sni_mismatch", TCP: &ir.TCP{
		StatPrefix: "sni_mismatch", Clusters: one(blackHoleCluster), AccessLog: innerLog(v),
	}}
	l := &ir.Listener{
		Name:      t.innerName(),
		Direction: ir.Outbound,
		Binding:   ir.Internal,
		Inspect:   ir.Inspection{TLS: true, HTTP: t.detected(), Timeout: detectionTimeout(v)},
		Chains:    []ir.Chain{c},
		Default:   &mismatch,
	}
	if !t.detected() {
		return l
	}
	http := ir.Chain{Name: "http", Match: ir.Match{Transport: ir.TransportPlain, ALPN: alpnPlain()}, HTTP: egressHTTP(t)}
	http.HTTP.Callers, http.HTTP.AccessLog = nil, innerLog(v) // the listener before has seen who calls
	l.Chains = append(l.Chains, http)
	if !t.dynamic() {
		mismatch.Match.Transport = ir.TransportTLS
		l.Chains = append(l.Chains, mismatch)
		l.Default = &ir.Chain{Name: "bytes", TCP: &ir.TCP{StatPrefix: t.key, Clusters: one(t.key)}}
	}
	return l
}

// egressLog is the mesh's log, with the caller's identity if nobody has chosen
// a format.
func egressLog(v *snapshot.View) *ir.AccessLog {
	a := accessLog(v)
	switch {
	case a == nil:
	case a.Format == textFormat:
		a.Format = strings.TrimSuffix(textFormat, "\n") + peerField
	case len(a.Fields) > 0 && v.Mesh().GetAccessLogFormat() == "":
		a.Fields["downstream_peer"] = strings.TrimSpace(peerField)
	}
	return a
}

// innerLog names the caller although the certificate was seen one listener before.
func innerLog(v *snapshot.View) *ir.AccessLog {
	a := egressLog(v)
	if a == nil {
		return nil
	}
	kept := func(s string) string {
		return strings.ReplaceAll(s, "%DOWNSTREAM_PEER_URI_SAN%", "%FILTER_STATE("+ir.PeerState+":PLAIN)%")
	}
	a.Format = kept(a.Format)
	for k, f := range a.Fields {
		a.Fields[k] = kept(f)
	}
	return a
}
