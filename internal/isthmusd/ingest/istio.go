// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"errors"
	"strings"

	"google.golang.org/protobuf/proto"
	api "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	security "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// virtualService completes short names: of hosts and destinations to full
// service names, of gateways to namespace/name.
func (c Converter) virtualService(o *networking.VirtualService) ([]Row, error) {
	spec := proto.Clone(&o.Spec).(*api.VirtualService)
	ns := o.Namespace
	for i, h := range spec.GetHosts() {
		spec.Hosts[i] = strings.ToLower(c.fqdn(h, ns))
	}
	qualifyGateways(spec.GetGateways(), ns)
	for _, r := range spec.GetHttp() {
		c.completeHTTP(r, ns)
	}
	for _, r := range spec.GetTcp() {
		for _, d := range r.GetRoute() {
			c.complete(d.GetDestination(), ns)
		}
		for _, m := range r.GetMatch() {
			qualifyGateways(m.GetGateways(), ns)
		}
	}
	for _, r := range spec.GetTls() {
		for _, d := range r.GetRoute() {
			c.complete(d.GetDestination(), ns)
		}
		for _, m := range r.GetMatch() {
			qualifyGateways(m.GetGateways(), ns)
		}
	}
	v := &model.VirtualService{Meta: metaOf(o, "VirtualService"), Spec: spec}
	return []Row{{
		Key:    "virtualservice/" + v.Key.String(),
		Put:    func(x *snapshot.Txn) { x.PutVirtualService(v) },
		Remove: func(x *snapshot.Txn) { x.DeleteVirtualService(v.Key) },
	}}, nil
}

func (c Converter) completeHTTP(r *api.HTTPRoute, ns string) {
	for _, d := range r.GetRoute() {
		c.complete(d.GetDestination(), ns)
	}
	c.complete(r.GetMirror(), ns)
	for _, m := range r.GetMirrors() {
		c.complete(m.GetDestination(), ns)
	}
	for _, m := range r.GetMatch() {
		qualifyGateways(m.GetGateways(), ns)
	}
}

func (c Converter) complete(d *api.Destination, ns string) {
	if d != nil {
		d.Host = c.fqdn(d.GetHost(), ns)
	}
}

func qualifyGateways(gateways []string, ns string) {
	for i, g := range gateways {
		if g != "mesh" && !strings.Contains(g, "/") {
			gateways[i] = ns + "/" + g
		}
	}
}

func (c Converter) destinationRule(o *networking.DestinationRule) ([]Row, error) {
	if o.Spec.GetHost() == "" {
		return nil, errors.New("destination rule without a host")
	}
	spec := proto.Clone(&o.Spec).(*api.DestinationRule)
	spec.Host = strings.ToLower(c.fqdn(spec.GetHost(), o.Namespace))
	d := &model.DestinationRule{Meta: metaOf(o, "DestinationRule"), Spec: spec}
	return []Row{{
		Key:    "destinationrule/" + d.Key.String(),
		Put:    func(x *snapshot.Txn) { x.PutDestinationRule(d) },
		Remove: func(x *snapshot.Txn) { x.DeleteDestinationRule(d.Key) },
	}}, nil
}

func (c Converter) gateway(o *networking.Gateway) ([]Row, error) {
	g := &model.Gateway{Meta: metaOf(o, "Gateway"), Spec: &o.Spec}
	return []Row{{
		Key:    "gateway/" + g.Key.String(),
		Put:    func(x *snapshot.Txn) { x.PutGateway(g) },
		Remove: func(x *snapshot.Txn) { x.DeleteGateway(g.Key) },
	}}, nil
}

func (c Converter) sidecar(o *networking.Sidecar) ([]Row, error) {
	s := &model.Sidecar{Meta: metaOf(o, "Sidecar"), Spec: &o.Spec}
	return []Row{{
		Key:    "sidecar/" + s.Key.String(),
		Put:    func(x *snapshot.Txn) { x.PutSidecar(s) },
		Remove: func(x *snapshot.Txn) { x.DeleteSidecar(s.Key) },
	}}, nil
}

func (c Converter) peerAuthentication(o *security.PeerAuthentication) ([]Row, error) {
	p := &model.PeerAuthentication{Meta: metaOf(o, "PeerAuthentication"), Spec: &o.Spec}
	return []Row{{
		Key:    "peerauthentication/" + p.Key.String(),
		Put:    func(x *snapshot.Txn) { x.PutPeerAuthentication(p) },
		Remove: func(x *snapshot.Txn) { x.DeletePeerAuthentication(p.Key) },
	}}, nil
}
