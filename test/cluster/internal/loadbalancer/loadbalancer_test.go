// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package loadbalancer

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func service(name, has, wants string) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}}
	s.Spec.Type = corev1.ServiceTypeLoadBalancer
	s.Spec.LoadBalancerIP = wants
	if has != "" {
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: has}}
	}
	return s
}

func TestAssign(t *testing.T) {
	t.Parallel()
	class := "someone.else/class"
	foreign := service("foreign", "", "")
	foreign.Spec.LoadBalancerClass = &class
	cases := map[string]struct {
		services []*corev1.Service
		want     map[string]string
	}{
		"nobody wants one":             {services: []*corev1.Service{foreign, service("a", "192.0.2.1", "")}},
		"the lowest free ones by name": {services: []*corev1.Service{service("b", "", ""), service("a", "", ""), service("c", "192.0.2.1", "")}, want: map[string]string{"a": "192.0.2.2", "b": "192.0.2.3"}},
		"the wanted one":               {services: []*corev1.Service{service("a", "", "192.0.2.3")}, want: map[string]string{"a": "192.0.2.3"}},
		"the wanted one is taken":      {services: []*corev1.Service{service("a", "", "192.0.2.1"), service("b", "192.0.2.1", "")}, want: map[string]string{"a": "192.0.2.2"}},
		"there are no more":            {services: []*corev1.Service{service("a", "", ""), service("b", "", ""), service("c", "", ""), service("d", "", "")}, want: map[string]string{"a": "192.0.2.1", "b": "192.0.2.2", "c": "192.0.2.3"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := map[string]string{}
			for k, ip := range Assign(c.services, netip.MustParsePrefix("192.0.2.0/30")) {
				got[k.Name] = ip.String()
				if k != (types.NamespacedName{Namespace: "n", Name: k.Name}) {
					t.Errorf("key %v", k)
				}
			}
			want := map[string]string{}
			for k, v := range c.want {
				want[k] = v
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("addresses (-want +got):\n%s", d)
			}
		})
	}
}
