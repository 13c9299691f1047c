// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// bounds is what NetworkPolicies let a proxy call without the egress gateway. The
// operator renders them from the allowance that isthmusd is told, so what they
// would drop is refused here at once instead of timing out.
type bounds struct {
	v     *snapshot.View
	reach topology.Reach
}

// boundsOf is nil where nothing is in the proxy's way. The egress gateway may
// leave the mesh; what it may not call there is its own matter.
func boundsOf(v *snapshot.View) *bounds {
	if v.Config().Topology != topology.EgressGateway || RoleOf(v) == Egress {
		return nil
	}
	reach, restricted := v.Reach()
	if !restricted {
		return nil
	}
	return &bounds{v: v, reach: reach}
}

func (b *bounds) place(namespace string) topology.Place {
	at := topology.Place{Namespace: namespace}
	if ns := b.v.Namespace(namespace); ns != nil {
		at.Labels = ns.Labels
	}
	return at
}

// refuses tells whether none of a destination's endpoints may be called, as far as
// that is known without looking at them: endpoints come and go.
func (b *bounds) refuses(d destination) bool { return b != nil && !b.leads(d) }

func (b *bounds) leads(d destination) bool {
	svc, port := d.svc, endpointPort(model.Endpoint{}, d.port)
	if d.port.TargetName != "" {
		port = 0
	}
	switch {
	case svc.ExternalName != "":
		return b.name(svc.ExternalName, d.key.port)
	case svc.Object.Kind == model.KindService && len(svc.Selector) > 0:
		return b.reach.ToNamespace(b.place(svc.Namespace), port)
	case svc.Headless:
		return slices.ContainsFunc(b.v.Summary(svc.ServiceKey).Addresses, func(a string) bool { return b.address(a, port) })
	case svc.Resolution != model.Passthrough:
		return true // each endpoint for itself
	case len(svc.Addresses) > 0:
		return !slices.ContainsFunc(svc.Addresses, func(p netip.Prefix) bool { return !b.reach.ToRange(p, port) })
	}
	return b.anywhere(port)
}

func (b *bounds) address(s string, port uint32) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && b.reach.ToAddress(a, port)
}

// anywhere is what it takes to call an address that nobody knows beforehand.
func (b *bounds) anywhere(port uint32) bool {
	return (!b.v.IPv4() || b.reach.Anywhere(netip.IPv4Unspecified(), port)) &&
		(!b.v.IPv6() || b.reach.Anywhere(netip.IPv6Unspecified(), port))
}

// name tells whether a host name may be called. Where it leads is known only of
// the cluster's own Services.
func (b *bounds) name(host string, port uint32) bool {
	for _, svc := range b.v.ServicesByHost(host) {
		if p, ok := svc.PortNumber(port); ok && svc.Object.Kind == model.KindService && svc.ExternalName == "" {
			return b.leads(destination{svc: svc, port: p})
		}
	}
	return b.anywhere(port)
}

// endpoint tells whether one endpoint may be called.
func (b *bounds) endpoint(e model.Endpoint, port uint32) bool {
	ip, err := netip.ParseAddr(e.Address)
	switch {
	case b == nil:
		return true
	case e.Pod && b.reach.ToPod(b.place(e.Namespace), labels.Set(e.Labels), port):
		return true
	case err == nil:
		return b.reach.ToAddress(ip, port)
	}
	return b.name(e.Address, port)
}

// refusal answers requests that could lead nowhere else.
func refusal() *ir.Direct { return &ir.Direct{Status: 502} }
