// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// maxKey is the longest key in clear: it is sent as SNI, of which Envoy refuses over 255 bytes.
const maxKey = 200

// hashedSuffix ends keys that are hashes.
const hashedSuffix = ".egress.isthmus"

// via tells whether a destination is reached through the egress gateway. It is
// the only place that knows: listeners and routes are the same in every
// topology, so moving between topologies cuts no connection.
func via(s *scope, svc *model.Service) bool {
	c := s.v.Config()
	return c.Topology == topology.EgressGateway && c.EgressGateway != nil && registeredOutside(svc) &&
		RoleOf(s.v) != Egress
}

// registeredOutside tells whether somebody declared an external host with a
// ServiceEntry. An ExternalName Service declares none: it is an alias.
func registeredOutside(svc *model.Service) bool {
	return svc.External && svc.Object.Kind == model.KindServiceEntry
}

// egressHost is the host of the egress gateway's own Service.
func egressHost(c topology.Config) string {
	return c.EgressGateway.Service + "." + c.EgressGateway.Namespace + ".svc." + c.ClusterDomain
}

// egressAssignment names the endpoints that all clusters share which go through
// the gateway.
func egressAssignment(c topology.Config) string {
	return outboundCluster(uint32(c.EgressGateway.Port), "", egressHost(c))
}

// throughGateway points a cluster at the egress gateway. Of the user's policy
// only the limits per client hold here; the gateway applies the others.
func throughGateway(s *scope, c *ir.Cluster, d destination) {
	cfg := s.v.Config()
	c.Discovery = ir.EDS
	c.Assignment = egressAssignment(cfg)
	s.applyPool(c, d.policy.pool)
	c.Pool = ir.Pool{
		MaxPending: c.Pool.MaxPending, MaxRequests: c.Pool.MaxRequests, MaxRetries: c.Pool.MaxRetries,
		ConnectTimeout: s.v.Mesh().GetConnectTimeout().AsDuration(),
	}
	c.Protocol = upstreamProtocol(d.port.Protocol)
	// A gateway pod that cannot be connected to is left alone; what the host
	// behind it answers says nothing about the gateway.
	c.Outlier = &ir.Outlier{OnlyLocal: true}
	account := cfg.EgressGateway.Namespace + "/" + cfg.EgressGateway.ServiceAccount
	c.TLS = meshClientTLS(cfg, egressKey(s, d.svc, d.key.port, d.key.subset), []string{account}, c.Protocol)
}

// egressKey is the SNI by which a client names a destination to the egress
// gateway, and the gateway's cluster of that name. It is a hash where the clear
// form is another entry's, too long, or holds a star.
func egressKey(s *scope, svc *model.Service, port uint32, subset string) string {
	plain := meshSNI(subsetKey{port, subset, svc.Host})
	policyNS := policyNamespace(s, svc)
	if len(plain) <= maxKey && !strings.Contains(svc.Host, "*") && policyNS == svc.Namespace && oldest(s.v, svc, port) {
		return plain
	}
	sum := sha256.Sum256([]byte(svc.Namespace + "/" + svc.Host + "@" + policyNS))
	return fmt.Sprintf("outbound_.%d_.%s_.%s"+hashedSuffix, port, subset, hex.EncodeToString(sum[:6]))
}

// hostOfKey is the last part of a key.
func hostOfKey(key string) string {
	parts := strings.SplitN(key, "_.", 4)
	return parts[len(parts)-1]
}

// oldest tells whether the entry is the oldest for its host and port. The clear
// key stays with it whatever younger entries come and go, for a chain that is
// renamed loses its connections.
func oldest(v *snapshot.View, svc *model.Service, port uint32) bool {
	for _, other := range v.ServicesByHost(svc.Host) {
		if _, ok := other.PortNumber(port); ok && registeredOutside(other) {
			return other.ServiceKey == svc.ServiceKey
		}
	}
	return false
}
