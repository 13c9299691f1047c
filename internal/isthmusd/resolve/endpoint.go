// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// assignments lists the endpoint sets that the proxy's clusters ask for.
func assignments(s *scope) []string {
	var names []string
	for _, name := range outboundClusters(s) {
		k, _ := parseOutbound(name)
		names = append(names, s.assignmentOf(k)...)
	}
	return names
}

// assignmentOf names the endpoint set of one cluster, if it has one.
func (s *scope) assignmentOf(k subsetKey) []string {
	d, ok := s.destination(k)
	switch {
	case !ok:
	case via(s, d.svc):
		return []string{egressAssignment(s.v.Config())}
	case s.discovery(d) == ir.EDS:
		return []string{outboundCluster(d.key.port, d.key.subset, d.key.host)}
	}
	return nil
}

// assignment resolves the endpoints of a destination.
func assignment(s *scope, k subsetKey) *ir.Assignment {
	name := outboundCluster(k.port, k.subset, k.host)
	d, ok := s.destination(k)
	in := s.bounds
	if c := s.v.Config(); c.EgressGateway != nil && name == egressAssignment(c) {
		// Everybody may reach the gateway, whatever a Sidecar imports.
		d, ok = egressDestination(s.v, k)
		in = nil
	} else if ok {
		ok = s.discovery(d) == ir.EDS
	}
	if !ok {
		return nil
	}
	b := newEndpointBuilder(s.v, d)
	b.bounds = in
	for _, e := range s.v.Endpoints(d.svc.ServiceKey) {
		b.add(e)
	}
	return &ir.Assignment{Name: name, Localities: b.localities()}
}

func egressDestination(v *snapshot.View, k subsetKey) (destination, bool) {
	svc := v.Service(model.ServiceKey{Namespace: v.Config().EgressGateway.Namespace, Host: k.host})
	if svc == nil {
		return destination{}, false
	}
	p, ok := svc.PortNumber(k.port)
	return destination{key: k, svc: svc, port: p}, ok
}

// place is what endpoints of one group have in common.
type place struct {
	locality string
	priority uint32
}

type endpointBuilder struct {
	v       *snapshot.View
	d       destination
	near    localityPolicy
	byPlace map[place][]ir.Endpoint
	modes   map[string]mtls // of namespaces whose PeerAuthentications select nobody in particular
	// sharedProxy is set at a gateway for what tenants declare: none of them may
	// lead it to its own agent, or to where clouds serve its machine's credentials.
	sharedProxy bool
	refused     bool // whether that, or the bounds, have left an endpoint out
	bounds      *bounds
}

func newEndpointBuilder(v *snapshot.View, d destination) *endpointBuilder {
	return &endpointBuilder{
		v: v, d: d, near: newLocalityPolicy(v, d.policy), byPlace: map[place][]ir.Endpoint{}, modes: map[string]mtls{},
		sharedProxy: v.ProxyType() == typeRouter && d.svc.Namespace != v.Config().Namespace,
	}
}

// proxyItself tells whether an address means the machine that connects to it.
func proxyItself(address string) bool {
	name := strings.TrimSuffix(strings.ToLower(address), ".")
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	ip = ip.Unmap().WithZone("")
	return err == nil && (ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsUnspecified() || ip.IsMulticast())
}

func (b *endpointBuilder) add(e model.Endpoint) {
	svc := b.d.svc
	if !e.Ready && !svc.PublishNotReady {
		return
	}
	if !snapshot.Matches(b.d.policy.labels, e.Labels) {
		return
	}
	if svc.NodeLocal && e.Node != b.v.NodeName() {
		return
	}
	port := endpointPort(e, b.d.port)
	if port == 0 && !strings.HasPrefix(e.Address, "/") {
		return
	}
	own := strings.HasPrefix(e.Address, "/")
	if b.sharedProxy && (own || proxyItself(e.Address)) || !own && !b.bounds.endpoint(e, port) {
		b.refused = true
		return
	}
	at := place{e.Locality, b.near.priority(e)}
	b.byPlace[at] = append(b.byPlace[at], ir.Endpoint{
		Address:  e.Address,
		Port:     port,
		Weight:   max(e.Weight, 1),
		TLSMode:  b.tlsMode(e, port),
		Workload: workloadTag(e),
	})
}

// endpointPort is the number that an endpoint has for a service port.
func endpointPort(e model.Endpoint, p model.Port) uint32 {
	if n, ok := e.Ports[p.Name]; ok {
		return n
	}
	if len(e.Ports) > 0 {
		return 0
	}
	if p.TargetPort != 0 {
		return p.TargetPort
	}
	return p.Number
}

// tlsMode is what clients may rely on: the workload ends mesh TLS, and its
// policy for the port has not turned it off.
func (b *endpointBuilder) tlsMode(e model.Endpoint, port uint32) string {
	if e.TLSMode != model.TLSIstio {
		return ""
	}
	mode, ok := b.modes[e.Namespace]
	if !ok {
		mode = serverMTLS(b.v, e.Namespace, func(sel map[string]string) bool { return snapshot.Matches(sel, e.Labels) })
		if !selective(b.v, e.Namespace) {
			b.modes[e.Namespace] = mode
		}
	}
	if mode.on(port) == modeDisable {
		return ""
	}
	return model.TLSIstio
}

func selective(v *snapshot.View, ns string) bool {
	return slices.ContainsFunc(v.PeerAuthentications(ns), func(p *model.PeerAuthentication) bool {
		return len(p.Spec.GetSelector().GetMatchLabels()) > 0
	})
}

func (b *endpointBuilder) localities() []ir.Locality {
	out := make([]ir.Locality, 0, len(b.byPlace))
	for at, es := range b.byPlace {
		l := locality(at.locality)
		l.Priority = at.priority
		slices.SortFunc(es, func(x, y ir.Endpoint) int {
			return cmp.Or(cmp.Compare(x.Address, y.Address), cmp.Compare(x.Port, y.Port))
		})
		l.Endpoints = es
		for _, e := range es {
			l.Weight += e.Weight
		}
		out = append(out, l)
	}
	slices.SortFunc(out, func(x, y ir.Locality) int {
		return cmp.Or(cmp.Compare(x.Region, y.Region), cmp.Compare(x.Zone, y.Zone), cmp.Compare(x.SubZone, y.SubZone), cmp.Compare(x.Priority, y.Priority))
	})
	return b.near.finish(out)
}

func locality(place string) ir.Locality {
	parts := strings.SplitN(place+"//", "/", 3)
	return ir.Locality{Region: parts[0], Zone: parts[1], SubZone: strings.Trim(parts[2], "/")}
}

// workloadTag describes an endpoint for telemetry, in Istio's compact form.
func workloadTag(e model.Endpoint) string {
	if e.Workload == "" {
		return ""
	}
	name := firstOf(e.Labels, "service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
	if name == "" {
		name = e.Workload
	}
	revision := firstOf(e.Labels, "service.istio.io/canonical-revision", "app.kubernetes.io/version", "version")
	if revision == "" {
		revision = "latest"
	}
	return strings.Join([]string{e.Workload, e.Namespace, name, revision, "Kubernetes"}, ";")
}

func firstOf(labels map[string]string, keys ...string) string {
	for _, k := range keys {
		if v := labels[k]; v != "" {
			return v
		}
	}
	return ""
}
