// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// TestInputsAreLeftAlone: what a snapshot holds is shared by everybody.
func TestInputsAreLeftAlone(t *testing.T) {
	t.Parallel()
	for name, tc := range cases(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := dump(tc.snap)
			for _, p := range tc.proxies {
				generateAll(t, tc.snap, p)
			}
			if after := dump(tc.snap); after != before {
				t.Errorf("translation has changed its input:\n%s\nwas\n%s", after, before)
			}
		})
	}
}

// dump writes everything that a view hands out.
func dump(s *snapshot.Snapshot) string {
	v := s.View(&model.Proxy{}, nil)
	out := fmt.Sprintf("%+v\n%s\n", v.Config(), text(v.Mesh()))
	namespaces := map[string]bool{v.Config().Namespace: true}
	for _, svc := range v.Services() {
		namespaces[svc.Namespace] = true
		out += fmt.Sprintf("%+v\n%+v\n%+v\n", *svc, v.Endpoints(svc.ServiceKey), v.Summary(svc.ServiceKey))
		for _, d := range v.DestinationRulesByHost(svc.Host) {
			out += d.String() + text(d.Spec)
		}
	}
	for _, vs := range v.VirtualServices() {
		out += vs.String() + text(vs.Spec)
	}
	for _, g := range v.Gateways() {
		out += g.String() + text(g.Spec)
	}
	for _, ns := range slices.Sorted(maps.Keys(namespaces)) {
		for _, sc := range v.Sidecars(ns) {
			out += sc.String() + text(sc.Spec)
		}
		for _, pa := range v.PeerAuthentications(ns) {
			out += pa.String() + text(pa.Spec)
		}
	}
	return out
}

func text(m proto.Message) string { return prototext.MarshalOptions{}.Format(m) }
