// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	meshconfig "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// viewOf is the view of a proxy in an empty world.
func viewOf(p *model.Proxy) *snapshot.View {
	return snapshot.NewStore(topology.Config{}, &meshconfig.MeshConfig{}).Current().View(p, nil)
}

func TestPriorities(t *testing.T) {
	t.Parallel()
	type setting = networking.LocalityLoadBalancerSetting
	for name, tc := range map[string]struct {
		spec *setting
		want []uint32
	}{
		"by distance":                         {&setting{}, []uint32{0, 1, 2, 3, 3}},
		"regions by failover":                 {&setting{Failover: []*networking.LocalityLoadBalancerSetting_Failover{{From: "r1", To: "r3"}}}, []uint32{0, 1, 2, 4, 3}},
		"by labels":                           {&setting{FailoverPriority: []string{"topology.kubernetes.io/region", "version"}}, []uint32{0, 1, 1, 2, 2}},
		"by labels with a value":              {&setting{FailoverPriority: []string{"version=v2"}}, []uint32{1, 0, 0, 0, 1}},
		"a distribution is not by priorities": {&setting{Distribute: []*networking.LocalityLoadBalancerSetting_Distribute{{From: "*"}}}, []uint32{0, 0, 0, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := viewOf(&model.Proxy{Locality: "r1/z1/s1", Labels: map[string]string{"version": "v1"}})
			l := newLocalityPolicy(v, trafficPolicy{
				loadBalancer: &networking.LoadBalancerSettings{LocalityLbSetting: tc.spec},
				outlier:      &networking.OutlierDetection{},
			})
			var got []uint32
			for _, e := range []model.Endpoint{
				{Locality: "r1/z1/s1", Labels: map[string]string{"version": "v1"}},
				{Locality: "r1/z1/s2", Labels: map[string]string{"version": "v2"}},
				{Locality: "r1/z2/s1", Labels: map[string]string{"version": "v2"}},
				{Locality: "r2/z1/s1", Labels: map[string]string{"version": "v2"}},
				{Locality: "r3"},
			} {
				got = append(got, l.priority(e))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDistribution(t *testing.T) {
	t.Parallel()
	v := viewOf(&model.Proxy{Locality: "r1/z1/s1"})
	l := newLocalityPolicy(v, trafficPolicy{loadBalancer: &networking.LoadBalancerSettings{
		LocalityLbSetting: &networking.LocalityLoadBalancerSetting{Distribute: []*networking.LocalityLoadBalancerSetting_Distribute{
			{From: "r9/*", To: map[string]uint32{"r9/*": 100}},
			{From: "r1/*", To: map[string]uint32{"r1/z1/*": 80, "r1/*": 15, "r2": 5}},
		}},
	}})
	got := l.finish([]ir.Locality{
		{Region: "r1", Zone: "z1", SubZone: "s1", Weight: 1},
		{Region: "r1", Zone: "z1", SubZone: "s2", Weight: 3},
		{Region: "r1", Zone: "z2", Weight: 2},
		{Region: "r2", Zone: "z1", Weight: 1},
		{Region: "r3", Weight: 1},
	})
	want := []ir.Locality{
		{Region: "r1", Zone: "z1", SubZone: "s1", Weight: 2000},
		{Region: "r1", Zone: "z1", SubZone: "s2", Weight: 6000},
		{Region: "r1", Zone: "z2", Weight: 1500},
		{Region: "r2", Zone: "z1", Weight: 500},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
