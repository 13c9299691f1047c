// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"maps"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// EgressClusters lists the egress gateway's clusters: one per key, and the ways
// to the inner listeners.
func EgressClusters(v *snapshot.View) []string {
	out := []string{blackHoleCluster}
	for _, t := range egressTargets(v) {
		out = append(out, t.key)
		if t.behind() {
			out = append(out, t.innerName())
		}
	}
	return out
}

// EgressCluster resolves one of them, or nil.
func EgressCluster(v *snapshot.View, name string) *ir.Cluster {
	if name == blackHoleCluster {
		return fixedCluster(newScope(v), name)
	}
	key, inner := strings.CutPrefix(name, innerPrefix)
	t, ok := findTarget(v, key)
	switch {
	case !ok || inner && !t.behind():
		return nil
	case inner:
		return &ir.Cluster{
			Name: name, Discovery: ir.Static, Tunnelled: true,
			Localities: []ir.Locality{{Endpoints: []ir.Endpoint{{Address: name, Internal: true}}}},
		}
	}
	return outsideCluster(t)
}

// outsideCluster leads to the host itself, with the user's policy but for the
// limits that hold per client: those are the sidecar's.
func outsideCluster(t egressTarget) *ir.Cluster {
	c := wantedCluster(t)
	if c == nil || !credentialsPresent(t.s, c) {
		return nil
	}
	return c
}

// wantedCluster is outsideCluster whether its credentials are there or not.
func wantedCluster(t egressTarget) *ir.Cluster {
	d := t.destination()
	if !d.policy.found {
		return nil
	}
	c := &ir.Cluster{
		Name:     t.key,
		Protocol: upstreamProtocol(t.port.Protocol),
		Services: []ir.ServiceRef{serviceRef(t.svc)},
	}
	if t.bytesOnly() && !t.detected() {
		c.Protocol = ir.Bytes
	}
	if d.policy.rule != nil {
		c.Config = kindPath(d.policy.rule.Meta, networkingGroup)
	}
	reachOutside(t, c, d)
	t.s.applyPolicy(c, d)
	if c.Discovery == ir.Dynamic || c.Discovery == ir.OriginalDst {
		c.Balance = ir.Balance{Policy: ir.Chosen}
	}
	c.Pool.MaxPending, c.Pool.MaxRequests, c.Pool.MaxRetries = 0, 0, 0
	t.s.secure(c, d)
	return c
}

// reachOutside finds the host's endpoints. Where the client's address would
// decide there is none any more: the host's name does instead.
func reachOutside(t egressTarget, c *ir.Cluster, d destination) {
	c.Family = family(t.s.v)
	if t.dynamic() {
		c.Discovery, c.Cache = ir.Dynamic, dnsCache(t.s.v)
		return
	}
	if t.tunnelled() {
		c.Discovery, c.Balance.Policy = ir.OriginalDst, ir.Chosen
		return
	}
	c.Localities = dnsEndpoints(t.s.v, d, nil)
	switch t.svc.Resolution {
	case model.ClientSideLB:
		c.Discovery = ir.Static
	case model.Passthrough:
		c.Discovery = ir.StrictDNS
		if t.bytesOnly() && len(t.svc.Addresses) > 0 {
			c.Discovery, c.Localities = ir.Static, addressed(t)
		}
	case model.DNSRoundRobin:
		c.Discovery = ir.LogicalDNS
	default:
		c.Discovery = ir.StrictDNS
	}
	if len(c.Localities) == 0 {
		c.Discovery = ir.Static
	}
	c.Outside = c.Discovery == ir.StrictDNS || c.Discovery == ir.LogicalDNS
}

// addressed is the one address of an entry that is reached by address. Of several
// the gateway does not learn which one the client dialled; such an entry leads
// nowhere rather than to the wrong machine.
func addressed(t egressTarget) []ir.Locality {
	if len(t.svc.Addresses) != 1 || !t.svc.Addresses[0].IsSingleIP() {
		return nil
	}
	address := t.svc.Addresses[0].Addr().String()
	if t.svc.Namespace != t.s.root && proxyItself(address) {
		return nil
	}
	return single(address, endpointPort(model.Endpoint{}, t.port))
}

// credentialsPresent is false while a secret is missing that a cluster needs.
func credentialsPresent(s *scope, c *ir.Cluster) bool { return len(missingCredentials(s, c)) == 0 }

// missingCredentials names the secrets that a cluster needs and that are not
// there, or not what they should be.
func missingCredentials(s *scope, c *ir.Cluster) []string {
	if c.TLS == nil {
		return nil
	}
	refs := []*ir.SecretRef{c.TLS.Certificate}
	if c.TLS.Server != nil {
		refs = append(refs, c.TLS.Server.CA)
	}
	var out []string
	for _, r := range refs {
		if r != nil && r.Source == ir.FromControlPlane && s.secret(r.Name) == nil {
			out = append(out, r.Name)
		}
	}
	return out
}

// EgressSecrets lists the credentials of TLS origination at the gateway.
func EgressSecrets(v *snapshot.View) []string {
	return slices.Sorted(maps.Keys(egressCredentials(v)))
}

// EgressSecret resolves one of them, or nil.
func EgressSecret(v *snapshot.View, name string) *ir.Secret { return egressCredentials(v)[name] }

// egressCredentials are the secrets that clusters of the gateway refer to. Each
// is read in the namespace of the rule that names it.
func egressCredentials(v *snapshot.View) map[string]*ir.Secret {
	out := map[string]*ir.Secret{}
	for _, t := range egressTargets(v) {
		c := outsideCluster(t)
		if c == nil || c.TLS == nil {
			continue
		}
		for _, r := range []*ir.SecretRef{c.TLS.Certificate, c.TLS.Server.CA} {
			if r != nil && r.Source == ir.FromControlPlane {
				out[r.Name] = t.s.secret(r.Name)
			}
		}
	}
	return out
}
