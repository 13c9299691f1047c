// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func labelled(v string) metav1.LabelSelector {
	return metav1.LabelSelector{MatchLabels: map[string]string{"app": v}}
}

func egressTo(ports []networkingv1.NetworkPolicyPort, to ...networkingv1.NetworkPolicyPeer) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: labelled("client"),
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
			Egress:      []networkingv1.NetworkPolicyEgressRule{{To: to, Ports: ports}},
		},
	}
}

func TestCompile(t *testing.T) {
	t.Parallel()
	client := Pod{Namespace: "a", Name: "client", Labels: map[string]string{"app": "client"}, IPs: []netip.Addr{ip("10.0.0.1")}}
	server := Pod{
		Namespace: "b", Name: "server", Labels: map[string]string{"app": "server"}, IPs: []netip.Addr{ip("10.0.0.2")},
		Ports: []NamedPort{{"web", corev1.ProtocolTCP, 8080}},
	}
	late := client
	late.Open = true
	everywhere, web, end := metav1.LabelSelector{}, intstr.FromString("web"), int32(443)
	http := intstr.FromInt32(80)
	udp := corev1.ProtocolUDP
	only := func(a ...Allow) Rules {
		return Rules{Pods: []PodRules{{Pod: "a/client", IPs: client.IPs, Egress: &Direction{Allows: a}}}}
	}
	toServer := labelled("server")
	cases := map[string]struct {
		pods    []Pod
		policy  *networkingv1.NetworkPolicy
		options Options
		want    Rules
	}{
		"a policy of another namespace selects nothing": {
			pods:   []Pod{{Namespace: "b", Name: "client", Labels: client.Labels, IPs: client.IPs}},
			policy: egressTo(nil),
		},
		"a pod may be late": {pods: []Pod{late}, policy: egressTo(nil)},
		"no peers and no ports are everything": {
			pods: []Pod{client}, policy: egressTo(nil), want: only(Allow{}),
		},
		"peers that nobody is are nothing": {
			pods:   []Pod{client},
			policy: egressTo(nil, networkingv1.NetworkPolicyPeer{PodSelector: &toServer}),
			want:   only(),
		},
		"a pod selector alone stays in the policy's namespace": {
			pods:   []Pod{client, server},
			policy: egressTo(nil, networkingv1.NetworkPolicyPeer{PodSelector: &toServer}),
			want:   only(),
		},
		"a name of a port is the peer's": {
			pods: []Pod{client, server},
			policy: egressTo([]networkingv1.NetworkPolicyPort{{Port: &web}},
				networkingv1.NetworkPolicyPeer{NamespaceSelector: &everywhere, PodSelector: &toServer}),
			want: only(Allow{
				Peers: []Range{{ip("10.0.0.2"), ip("10.0.0.2")}},
				Ports: []Ports{{corev1.ProtocolTCP, 8080, 8080}},
			}),
		},
		"neighbours are joined and protocols default to TCP": {
			pods: []Pod{client, server},
			policy: egressTo([]networkingv1.NetworkPolicyPort{{Port: &http, EndPort: &end}, {Protocol: &udp}},
				networkingv1.NetworkPolicyPeer{NamespaceSelector: &everywhere}),
			want: only(Allow{
				Peers: []Range{{ip("10.0.0.1"), ip("10.0.0.2")}},
				Ports: []Ports{{corev1.ProtocolTCP, 80, 443}, {corev1.ProtocolUDP, 0, 65535}},
			}),
		},
		"exceptions and the node are cut out of a block": {
			pods:    []Pod{client},
			policy:  egressTo(nil, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "10.88.0.0/29", Except: []string{"10.88.0.4/30"}}}),
			options: Options{NotBlocks: []netip.Prefix{netip.MustParsePrefix("10.88.0.1/32")}},
			want:    only(Allow{Block: true, Peers: []Range{{ip("10.88.0.0"), ip("10.88.0.0")}, {ip("10.88.0.2"), ip("10.88.0.3")}}}),
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := State{Pods: c.pods, Policies: []*networkingv1.NetworkPolicy{c.policy}, Namespaces: map[string]map[string]string{"a": nil, "b": nil}}
			got := Compile(s, c.options)
			if d := cmp.Diff(c.want, got, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
				t.Errorf("rules (-want +got):\n%s", d)
			}
		})
	}
}
