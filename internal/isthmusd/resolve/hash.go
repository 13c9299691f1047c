// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"slices"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
)

// hash is what requests to a destination are hashed by, if its load balancer hashes.
func (r *routing) hash(d *networking.Destination, ns string) []ir.HashPolicy {
	return r.hashFor(r.destination(d, ns))
}

func (r *routing) hashFor(k subsetKey) []ir.HashPolicy {
	return hashPolicies(r.s.policy(k).loadBalancer.GetConsistentHash())
}

func hashPolicies(h *networking.LoadBalancerSettings_ConsistentHashLB) []ir.HashPolicy {
	switch k := h.GetHashKey().(type) {
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpHeaderName:
		return []ir.HashPolicy{{Header: k.HttpHeaderName}}
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpQueryParameterName:
		return []ir.HashPolicy{{Query: k.HttpQueryParameterName}}
	case *networking.LoadBalancerSettings_ConsistentHashLB_UseSourceIp:
		return []ir.HashPolicy{{SourceIP: true}}
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpCookie:
		p := ir.HashPolicy{Cookie: k.HttpCookie.GetName(), CookiePath: k.HttpCookie.GetPath()}
		if t := k.HttpCookie.GetTtl(); t != nil {
			d := t.AsDuration()
			p.CookieTTL = &d
		}
		return []ir.HashPolicy{p}
	}
	return nil
}

func addHash(have, more []ir.HashPolicy) []ir.HashPolicy {
	for _, p := range more {
		if !slices.Contains(have, p) {
			have = append(have, p)
		}
	}
	return have
}
