// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"net/netip"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

// OwnAddresses are those of the cluster itself, unrecorded: the ranges that nodes
// give pods addresses from, pods, Services, and the endpoints of the API server.
func (s *Snapshot) OwnAddresses() []netip.Prefix {
	var out []netip.Prefix
	for _, n := range s.nodes.list(All, "") {
		out = append(out, n.PodRanges...)
	}
	for _, w := range s.workloads.list(All, "") {
		if w.Kind != model.KindPod {
			continue
		}
		for _, ip := range w.IPs {
			out = append(out, netip.PrefixFrom(ip, ip.BitLen()))
		}
	}
	for _, svc := range s.allServices() {
		if svc.Object.Kind == model.KindService {
			out = append(out, svc.Addresses...)
		}
	}
	api := model.ServiceKey{Namespace: "default", Host: "kubernetes.default.svc." + s.config.ClusterDomain}
	if set, ok := s.endpoints.get(serviceKey(api)); ok {
		for _, e := range set.endpoints {
			if ip, err := netip.ParseAddr(e.Address); err == nil {
				out = append(out, netip.PrefixFrom(ip, ip.BitLen()))
			}
		}
	}
	return out
}
