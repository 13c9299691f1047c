// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"net/netip"
	"slices"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

// dialled is what a client must have dialled for its requests to go where it
// dialled, for destinations that mean just that. Without it whoever names such a
// host in a request reaches any address under its name, where only what is
// registered may be reached. Nil means that it does not matter.
func (s *scope) dialled(keys []subsetKey) *ir.Dialled {
	if s.router || !s.registryOnly() {
		return nil
	}
	var out *ir.Dialled
	for _, k := range keys {
		d, ok := s.destination(k)
		if !ok || !followsClient(d) || anyAddress(d.svc) {
			continue
		}
		if out == nil {
			out = &ir.Dialled{}
		}
		out.Ranges = append(out.Ranges, tcpRanges(s.v, d.svc)...)
	}
	if out != nil {
		slices.SortFunc(out.Ranges, comparePrefixes)
		out.Ranges = slices.Compact(out.Ranges)
	}
	return out
}

// followsClient tells whether a destination is wherever the client has dialled, as
// far as the proxy is one that knows. It does not depend on the topology, for
// routes must not.
func followsClient(d destination) bool {
	simple, ok := d.policy.loadBalancer.GetLbPolicy().(*networking.LoadBalancerSettings_Simple)
	return d.svc.Headless || d.svc.Resolution == model.Passthrough ||
		ok && simple.Simple == networking.LoadBalancerSettings_PASSTHROUGH
}

// anyAddress tells whether an entry is for whatever address a client has found
// for its names.
func anyAddress(svc *model.Service) bool {
	return svc.Resolution == model.Passthrough && len(svc.Addresses) == 0 && svc.Object.Kind == model.KindServiceEntry
}

// resolvedHere tells whether an entry's name is resolved by the proxy though the
// entry leaves that to clients: at a gateway, whose clients have dialled the
// gateway, and where only what is registered may be reached.
func (s *scope) resolvedHere(svc *model.Service) bool {
	return anyAddress(svc) && (s.router || s.registryOnly()) && !isWildcard(svc.Host)
}

func comparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}
