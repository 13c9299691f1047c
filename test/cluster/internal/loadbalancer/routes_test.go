// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package loadbalancer

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func machine(name, ip string, status corev1.ConditionStatus) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}},
		Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: ip}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}},
		},
	}
}

func endpoints(service, node string, isReady bool) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: service + "-" + node, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		Endpoints:  []discoveryv1.Endpoint{{NodeName: &node, Conditions: discoveryv1.EndpointConditions{Ready: &isReady}}},
	}
}

func TestRoutesOf(t *testing.T) {
	t.Parallel()
	local := func(s *corev1.Service) *corev1.Service {
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		return s
	}
	excluded := machine("c", "10.0.0.3", corev1.ConditionTrue)
	excluded.Labels[corev1.LabelNodeExcludeBalancers] = ""
	nodes := []*corev1.Node{
		machine("b", "10.0.0.2", corev1.ConditionTrue), machine("a", "10.0.0.1", corev1.ConditionTrue),
		machine("dead", "10.0.0.9", corev1.ConditionUnknown), excluded,
	}
	cases := map[string]struct {
		service *corev1.Service
		given   string
		slices  []*discoveryv1.EndpointSlice
		want    map[string][]string
	}{
		"by all ready nodes":                        {service: service("s", "192.0.2.1", ""), want: map[string][]string{"192.0.2.1": {"10.0.0.1", "10.0.0.2"}}},
		"before the Service says its address":       {service: service("s", "", ""), given: "192.0.2.1", want: map[string][]string{"192.0.2.1": {"10.0.0.1", "10.0.0.2"}}},
		"a Service without an address":              {service: service("s", "", ""), want: map[string][]string{}},
		"local: by the nodes that have an endpoint": {service: local(service("s", "192.0.2.1", "")), slices: []*discoveryv1.EndpointSlice{endpoints("s", "b", true), endpoints("other", "a", true)}, want: map[string][]string{"192.0.2.1": {"10.0.0.2"}}},
		"local: an endpoint that is not ready":      {service: local(service("s", "192.0.2.1", "")), slices: []*discoveryv1.EndpointSlice{endpoints("s", "b", false)}, want: map[string][]string{"192.0.2.1": nil}},
		"local: an endpoint on a dead node":         {service: local(service("s", "192.0.2.1", "")), slices: []*discoveryv1.EndpointSlice{endpoints("s", "dead", true)}, want: map[string][]string{"192.0.2.1": nil}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			given := map[types.NamespacedName]netip.Addr{}
			if c.given != "" {
				given[types.NamespacedName{Namespace: "n", Name: "s"}] = netip.MustParseAddr(c.given)
			}
			got := map[string][]string{}
			for ip, hops := range RoutesOf([]*corev1.Service{c.service}, given, c.slices, nodes) {
				got[ip.String()] = nil
				for _, h := range hops {
					got[ip.String()] = append(got[ip.String()], h.String())
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("routes (-want +got):\n%s", d)
			}
		})
	}
}
