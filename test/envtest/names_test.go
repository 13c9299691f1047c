// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envtest

import (
	"errors"
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
)

// TestWallLeavesTheWayToTheNodesCacheOfNames installs Kubernetes' cache of names, as
// its manifest does, beside a DNS of the mesh's own.
func TestWallLeavesTheWayToTheNodesCacheOfNames(t *testing.T) {
	m := newMesh(t, "names", v1alpha1.EgressGateway, func(s *v1alpha1.MeshTopologySpec) {
		s.Egress.NetworkPolicy.DNS.Namespace = "dns-of-names"
	})
	m.phase(v1alpha1.PhasePreparing)
	labels := map[string]string{"k8s-app": "node-local-dns"}
	m.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "dns-of-names"}})
	m.create(&appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "dns-of-names", Name: "node-local-dns"},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{HostNetwork: true, Containers: []corev1.Container{{
				Name: "node-cache", Image: "k8s-dns-node-cache", Args: []string{"-localip", "169.254.20.10,10.96.0.10", "-conf", "/etc/Corefile", "-upstreamsvc", "kube-dns-upstream"},
			}}}},
		},
	})
	m.create(&corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "dns-of-names", Name: "kube-dns"},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"k8s-app": "kube-dns"}, Ports: []corev1.ServicePort{
			{Name: "udp", Port: 53, Protocol: corev1.ProtocolUDP}, {Name: "tcp", Port: 53, Protocol: corev1.ProtocolTCP},
		}},
	})
	m.holds(v1alpha1.EgressGateway)
	for namespace, name := range map[string]string{m.member: "isthmus-egress-" + m.name, m.own: "isthmus-ingress-" + m.name} {
		eventually(t, "way to the cache", func() error {
			for _, r := range read(m, namespace, name, &networkingv1.NetworkPolicy{}).Spec.Egress {
				for _, to := range r.To {
					if to.IPBlock != nil && to.IPBlock.CIDR == "169.254.20.10/32" {
						return wantPorts(r.Ports, "TCP/53", "UDP/53")
					}
				}
			}
			return errors.New("none")
		})
	}
	m.restsWithoutWrites()
	m.leavesNothing()
}

func wantPorts(ports []networkingv1.NetworkPolicyPort, want ...string) error {
	var got []string
	for _, p := range ports {
		got = append(got, fmt.Sprintf("%s/%s", *p.Protocol, p.Port))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		return fmt.Errorf("at ports %v, not %v", got, want)
	}
	return nil
}
