// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/internal/operator/policy"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

func labels(kv ...string) *metav1.LabelSelector {
	s := &metav1.LabelSelector{MatchLabels: map[string]string{}}
	for i := 0; i < len(kv); i += 2 {
		s.MatchLabels[kv[i]] = kv[i+1]
	}
	return s
}

var shop = policy.Namespace{Name: "shop", Labels: map[string]string{"mesh": "yes"}}

func TestMember(t *testing.T) {
	members := topology.Peer{Namespaces: labels("mesh", "yes")}
	tests := map[string]struct {
		flows []topology.Flow
		want  string
	}{
		"no flow: nothing leaves": {
			want: `
- metadata: {name: p, namespace: shop}
  spec: {podSelector: {}, policyTypes: [Egress]}
`,
		},
		"a flow from members, to pods and addresses": {
			flows: []topology.Flow{{
				From:  members,
				To:    []topology.Peer{{Namespace: "kube-system", Pods: labels("app", "dns")}, {CIDR: "10.0.0.10/32"}},
				Ports: []topology.Port{{Protocol: "UDP", Number: 53}, {Protocol: "TCP", Number: 100, End: 200}, {Protocol: "TCP"}},
			}},
			want: `
- metadata: {name: p, namespace: shop}
  spec:
    podSelector: {}
    policyTypes: [Egress]
    egress:
    - to:
      - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
        podSelector: {matchLabels: {app: dns}}
      - ipBlock: {cidr: 10.0.0.10/32}
      ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 100, endPort: 200}, {protocol: TCP}]
`,
		},
		"flows of others do not count": {
			flows: []topology.Flow{
				{From: topology.Peer{Namespaces: labels("mesh", "no")}, To: []topology.Peer{members}},
				{From: topology.Peer{Namespace: "isthmus-system", Pods: labels("a", "b")}, To: []topology.Peer{members}},
				{From: topology.Peer{CIDR: "0.0.0.0/0"}, To: []topology.Peer{members}},
			},
			want: `
- metadata: {name: p, namespace: shop}
  spec: {podSelector: {}, policyTypes: [Egress]}
`,
		},
		"two selectors that cover the namespace make one rule": {
			flows: []topology.Flow{
				{From: members, To: []topology.Peer{members}},
				{From: topology.Peer{Namespaces: &metav1.LabelSelector{}}, To: []topology.Peer{members}},
			},
			want: `
- metadata: {name: p, namespace: shop}
  spec:
    podSelector: {}
    policyTypes: [Egress]
    egress: [{to: [{namespaceSelector: {matchLabels: {mesh: "yes"}}}]}]
`,
		},
		"what some pods may has a policy of its own": {
			flows: []topology.Flow{{
				From: topology.Peer{Namespaces: labels("mesh", "yes"), Pods: labels("app", "report")}, To: []topology.Peer{{CIDR: "10.20.0.0/16"}},
			}},
			want: `
- metadata: {name: p, namespace: shop}
  spec: {podSelector: {}, policyTypes: [Egress]}
- metadata: {name: p-95064aac, namespace: shop}
  spec:
    podSelector: {matchLabels: {app: report}}
    policyTypes: [Egress]
    egress: [{to: [{ipBlock: {cidr: 10.20.0.0/16}}]}]
`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := policy.Member(shop, "p", tt.flows)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, tt.want, got)
		})
	}
}

func TestAround(t *testing.T) {
	gateway := topology.Peer{Namespace: "isthmus-system", Pods: labels("part", "egress")}
	got := policy.Around(gateway, "p", []topology.Flow{
		{From: topology.Peer{Namespaces: labels("mesh", "yes")}, To: []topology.Peer{gateway}, Ports: []topology.Port{{Protocol: "TCP", Number: 15443}}},
		{From: topology.Peer{CIDR: "0.0.0.0/0"}, To: []topology.Peer{gateway}, Ports: []topology.Port{{Protocol: "TCP", Number: 15021}}},
		{From: gateway, To: []topology.Peer{{CIDR: "0.0.0.0/0", Except: []string{"169.254.0.0/16"}}}},
		{From: topology.Peer{Namespaces: labels("mesh", "yes")}, To: []topology.Peer{{CIDR: "10.0.0.1/32"}}},
	}, networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress)
	compare(t, `
- metadata: {name: p, namespace: isthmus-system}
  spec:
    podSelector: {matchLabels: {part: egress}}
    policyTypes: [Ingress, Egress]
    ingress:
    - from: [{namespaceSelector: {matchLabels: {mesh: "yes"}}}]
      ports: [{protocol: TCP, port: 15443}]
    - ports: [{protocol: TCP, port: 15021}]
    egress:
    - to: [{ipBlock: {cidr: 0.0.0.0/0, except: [169.254.0.0/16]}}]
`, []*networkingv1.NetworkPolicy{got})
}

func compare(t *testing.T, text string, got []*networkingv1.NetworkPolicy) {
	t.Helper()
	var want []*networkingv1.NetworkPolicy
	if err := yaml.UnmarshalStrict([]byte(text), &want); err != nil {
		t.Fatal(err)
	}
	for _, p := range want {
		p.TypeMeta = metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
