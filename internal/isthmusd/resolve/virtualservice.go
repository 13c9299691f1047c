// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"slices"
	"strings"
	"time"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

const networkingGroup = "networking.istio.io/v1"

// routing is for whom the routes of VirtualServices are made.
type routing struct {
	s    *scope
	port uint32
	// detected is set where the client's protocol was found out on the wire.
	detected bool
	// gateways by which VirtualServices mean us: "mesh", or "namespace/name".
	gateways []string
}

func meshRouting(s *scope, port uint32) *routing {
	return &routing{s: s, port: port, gateways: []string{meshGateway}}
}

// names the gateways of a list in full; none means the mesh.
func gatewayNames(list []string, ns string) []string {
	if len(list) == 0 {
		return []string{meshGateway}
	}
	out := make([]string, len(list))
	for i, g := range list {
		out[i] = g
		if g != meshGateway && !strings.Contains(g, "/") {
			out[i] = ns + "/" + g
		}
	}
	return out
}

func (r *routing) binds(vs *model.VirtualService) bool {
	return r.mine(gatewayNames(vs.Spec.GetGateways(), vs.Namespace))
}

func (r *routing) mine(names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(r.gateways, n) })
}

// virtualService finds the one for a host: the most specific host, then the oldest.
func (r *routing) virtualService(host string) *model.VirtualService {
	var best *model.VirtualService
	length := -1
	domain := r.s.v.Config().ClusterDomain
	for _, vs := range r.s.v.VirtualServicesByHost(host) {
		if !r.binds(vs) || !r.s.seesVirtualService(vs) {
			continue
		}
		for _, h := range vs.Spec.GetHosts() {
			full := fullName(h, vs.Namespace, domain)
			n := len(full)
			if full == host {
				n = 1 << 16
			}
			if covers(full, host) && n > length {
				best, length = vs, n
			}
		}
	}
	return best
}

// http makes the routes of a VirtualService, in order. A route for everything ends the list.
func (r *routing) http(vs *model.VirtualService) []ir.Route {
	var out []ir.Route
	for _, h := range r.delegated(vs) {
		matches := h.route.GetMatch()
		if len(matches) == 0 {
			return append(out, r.route(h, nil))
		}
		for _, m := range matches {
			if r.applies(h.vs, m) {
				out = append(out, r.route(h, m))
			}
		}
	}
	return out
}

// httpRoute is a route with the VirtualService that wrote it.
type httpRoute struct {
	vs    *model.VirtualService
	route *networking.HTTPRoute
}

// applies checks the conditions that hold for the whole proxy, and that Envoy can
// check the others.
func (r *routing) applies(vs *model.VirtualService, m *networking.HTTPMatchRequest) bool {
	if m.GetPort() != 0 && m.GetPort() != r.port {
		return false
	}
	if !regexesCompile(m) {
		return false
	}
	return r.sourceApplies(vs, m.GetGateways(), m.GetSourceLabels(), m.GetSourceNamespace())
}

// sourceApplies checks what a match says of the client's side. A condition on
// the source means sidecars only where gateways are named beside it.
func (r *routing) sourceApplies(vs *model.VirtualService, gateways []string, labels map[string]string, ns string) bool {
	if len(gateways) > 0 && !r.mine(gatewayNames(gateways, vs.Namespace)) {
		return false
	}
	if r.s.router {
		return true
	}
	return (ns == "" || r.s.in(ns)) && r.s.v.ProxyMatches(labels)
}

func (r *routing) route(h httpRoute, m *networking.HTTPMatchRequest) ir.Route {
	spec := h.route
	out := ir.Route{
		Name:    routeName(spec, m),
		Match:   requestMatch(m),
		Config:  kindPath(h.vs.Meta, networkingGroup),
		Headers: headerOps(spec.GetHeaders()),
		Fault:   fault(spec.GetFault()),
		CORS:    cors(spec.GetCorsPolicy()),
	}
	authority := takeAuthority(&out.Headers)
	switch {
	case spec.GetRedirect() != nil:
		out.Redirect = redirect(spec.GetRedirect(), r.port)
	case spec.GetDirectResponse() != nil:
		out.Direct = direct(spec.GetDirectResponse())
	case len(spec.GetRoute()) == 0:
		out.Direct = &ir.Direct{Status: 500}
	case r.borrows(h):
		out.Direct = &ir.Direct{Status: 403}
	case r.leadsNowhere(h):
		out.Direct = refusal()
	default:
		out.Forward = r.forward(h, m)
		out.Dialled = r.s.dialled(r.routeKeys(h))
		if authority != "" && out.Forward.Rewrite.Authority == "" {
			out.Forward.Rewrite.Authority = authority
		}
		out.Operation = r.operation(h, m)
		out.OfferALPN = r.offer(h)
		if r.leads(h) {
			leaves(&out)
		}
	}
	return out
}

func routeName(h *networking.HTTPRoute, m *networking.HTTPMatchRequest) string {
	switch {
	case h.GetName() != "" && m.GetName() != "":
		return h.GetName() + "." + m.GetName()
	case m.GetName() != "":
		return m.GetName()
	}
	return h.GetName()
}

// operation names spans as Istio does: host, port and path of the first destination.
func (r *routing) operation(h httpRoute, m *networking.HTTPMatchRequest) string {
	path := "/*"
	if u := m.GetUri(); u != nil {
		path = u.GetExact() + u.GetRegex()
		if p := u.GetPrefix(); p != "" {
			path = p + "*"
		}
	}
	d := h.route.GetRoute()[0].GetDestination()
	k := r.destination(d, h.vs.Namespace)
	return k.host + ":" + portString(k.port) + path
}

// offer replaces the protocols that a listener offers to upstreams by what was
// found out, where a route leads to one that speaks a protocol of its own.
func (r *routing) offer(h httpRoute) []string {
	if !r.detected {
		return nil
	}
	for _, dst := range h.route.GetRoute() {
		d, ok := r.s.destination(r.destination(dst.GetDestination(), h.vs.Namespace))
		if !ok {
			continue
		}
		c := ir.Cluster{Protocol: upstreamProtocol(d.port.Protocol)}
		r.s.upgrade(&c, d.policy.pool.GetHttp())
		switch {
		case c.Protocol == ir.SameAsClient || c.Protocol == ir.Bytes:
		case d.svc.External:
			return plainALPN(c.Protocol)
		default:
			return clientALPN(c.Protocol)
		}
	}
	return nil
}

func (r *routing) forward(h httpRoute, m *networking.HTTPMatchRequest) *ir.Forward {
	spec, ns := h.route, h.vs.Namespace
	f := &ir.Forward{
		Timeout: spec.GetTimeout().AsDuration(),
		Retry:   r.retry(spec.GetRetries()),
		Rewrite: rewrite(spec.GetRewrite(), m),
		Mirrors: r.mirrors(spec, ns),
	}
	for _, d := range spec.GetRoute() {
		if d.GetWeight() == 0 && len(spec.GetRoute()) > 1 {
			continue
		}
		w := ir.WeightedCluster{
			Cluster: r.cluster(d.GetDestination(), ns),
			Weight:  uint32(max(d.GetWeight(), 1)),
			Headers: headerOps(d.GetHeaders()),
		}
		w.Authority = takeAuthority(&w.Headers)
		f.Clusters = append(f.Clusters, w)
		f.Hash = addHash(f.Hash, r.hash(d.GetDestination(), ns))
	}
	if len(f.Clusters) == 0 {
		f.Clusters = one(blackHoleCluster)
	}
	return f
}

// destination names the cluster's parts. Without a port it is the service's
// only one, or the one that the client dialled.
func (r *routing) destination(d *networking.Destination, ns string) subsetKey {
	k := subsetKey{
		port:   d.GetPort().GetNumber(),
		subset: d.GetSubset(),
		host:   fullName(d.GetHost(), ns, r.s.v.Config().ClusterDomain),
	}
	if k.port == 0 {
		k.port = r.port
		if svc := r.s.service(k.host); svc != nil && len(svc.Ports) == 1 {
			k.port = svc.Ports[0].Number
		}
	}
	return k
}

func (r *routing) cluster(d *networking.Destination, ns string) string {
	k := r.destination(d, ns)
	return outboundCluster(k.port, k.subset, k.host)
}

// plain routes everything to the service itself.
func (r *routing) plain(svc *model.Service) ir.Route {
	p, _ := svc.PortNumber(r.port)
	if r.refuses(subsetKey{port: r.port, host: svc.Host}) {
		return ir.Route{Name: "block_all", Direct: refusal()}
	}
	out := ir.Route{
		Name:      "default",
		Operation: svc.Host + ":" + portString(p.Number) + "/*",
		Forward: &ir.Forward{
			Clusters: one(outboundCluster(r.port, "", svc.Host)),
			Retry:    r.retry(nil),
			Hash:     r.hashFor(subsetKey{port: r.port, host: svc.Host}),
		},
		Dialled: r.s.dialled([]subsetKey{{port: r.port, host: svc.Host}}),
	}
	if registeredOutside(svc) {
		leaves(&out)
	}
	return out
}

// Default retries: only what the upstream has not begun to serve. They are
// Istio's, and one more that is as safe: a connection that broke before the
// request was on it, as when a pod dies with its connections in our pool.
const (
	defaultRetryOn  = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes,reset-before-request"
	defaultAttempts = 2
)

func (r *routing) retry(spec *networking.HTTPRetry) *ir.Retry {
	if spec == nil {
		spec = r.s.v.Mesh().GetDefaultHttpRetryPolicy()
	}
	if spec == nil {
		return &ir.Retry{On: defaultRetryOn, Attempts: defaultAttempts}
	}
	if spec.GetAttempts() <= 0 {
		return nil
	}
	out := &ir.Retry{
		On:             defaultRetryOn,
		Attempts:       uint32(spec.GetAttempts()),
		PerTry:         spec.GetPerTryTimeout().AsDuration(),
		BackOff:        max(spec.GetBackoff().AsDuration(), 0),
		IgnorePrevious: spec.GetRetryIgnorePreviousHosts() != nil && !spec.GetRetryIgnorePreviousHosts().GetValue(),
	}
	if on := spec.GetRetryOn(); on != "" {
		out.On, out.StatusCodes = retryOn(on)
	}
	if out.BackOff > 0 && out.BackOff < time.Millisecond {
		out.BackOff = time.Millisecond
	}
	return out
}

// retryOn separates status codes, which Envoy wants in a list of their own.
func retryOn(s string) (string, []uint32) {
	var on []string
	var codes []uint32
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if code, ok := parsePort(part); ok && code >= 100 && code < 600 {
			codes = append(codes, code)
			continue
		}
		if part != "" {
			on = append(on, part)
		}
	}
	if len(codes) > 0 && !slices.Contains(on, "retriable-status-codes") {
		on = append(on, "retriable-status-codes")
	}
	return strings.Join(on, ","), codes
}

// refuses tells whether a destination is out of the proxy's bounds.
func (r *routing) refuses(k subsetKey) bool {
	if r.s.bounds == nil {
		return false
	}
	d, ok := r.s.destination(k)
	return ok && !via(r.s, d.svc) && r.s.bounds.refuses(d)
}

// leadsNowhere tells whether all destinations of a route are out of bounds.
func (r *routing) leadsNowhere(h httpRoute) bool {
	return !slices.ContainsFunc(r.routeKeys(h), func(k subsetKey) bool { return !r.refuses(k) })
}

// routeKeys are the destinations of a route.
func (r *routing) routeKeys(h httpRoute) []subsetKey {
	var out []subsetKey
	for _, d := range h.route.GetRoute() {
		out = append(out, r.destination(d.GetDestination(), h.vs.Namespace))
	}
	return out
}

// leads tells whether a route leads to a registered host outside.
func (r *routing) leads(h httpRoute) bool {
	return slices.ContainsFunc(h.route.GetRoute(), func(d *networking.HTTPRouteDestination) bool {
		svc := r.s.service(r.destination(d.GetDestination(), h.vs.Namespace).host)
		return svc != nil && registeredOutside(svc)
	})
}

// leaves prepares a route for leaving through the egress gateway, in every
// topology, for routes are the same in all: what the gateway says of the host is
// for the retries here and for nobody else.
func leaves(out *ir.Route) {
	if out.Forward == nil {
		return
	}
	out.Headers.Response.Remove = append(slices.Clone(out.Headers.Response.Remove), ir.FailureHeader)
	retry := out.Forward.Retry
	if retry == nil {
		return
	}
	on := strings.Split(retry.On, ",")
	if slices.Contains(on, "connect-failure") {
		retry.Failures = append(retry.Failures, ir.FailedToConnect)
	}
	if slices.Contains(on, "reset") {
		retry.Failures = append(retry.Failures, ir.FailedByReset)
	}
	if len(retry.Failures) > 0 && !slices.Contains(on, "retriable-headers") {
		retry.On += ",retriable-headers"
	}
}

// borrows tells whether a route at a gateway leads through another tenant's entry
// to a host outside. Where all must leave through the egress gateway an entry is
// for its own namespace, and a shared ingress gateway is not a way around that.
func (r *routing) borrows(h httpRoute) bool {
	if !r.s.router || r.s.v.Config().Topology != topology.EgressGateway {
		return false
	}
	return slices.ContainsFunc(h.route.GetRoute(), func(d *networking.HTTPRouteDestination) bool {
		svc := r.s.service(r.destination(d.GetDestination(), h.vs.Namespace).host)
		return svc != nil && registeredOutside(svc) && svc.Namespace != h.vs.Namespace && svc.Namespace != r.s.root
	})
}
