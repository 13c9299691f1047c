// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/internal/topology"
)

func cluster() Cluster {
	members := &metav1.LabelSelector{MatchLabels: map[string]string{"mesh": "a"}}
	from := topology.Peer{Namespaces: members}
	report := topology.Peer{Namespaces: members, Pods: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "report"}}}
	return Cluster{
		Namespaces: map[string]map[string]string{
			"shop": {"mesh": "a", "kubernetes.io/metadata.name": "shop"}, "ship": {"mesh": "a", "kubernetes.io/metadata.name": "ship"},
			"kube-system": {"kubernetes.io/metadata.name": "kube-system"},
		},
		Allowance: []topology.Flow{
			{From: from, To: []topology.Peer{{Namespaces: members}}},
			{From: from, To: []topology.Peer{
				{Namespace: "kube-system", Pods: &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": "kube-dns"}}}, {CIDR: "10.96.0.10/32"},
			}, Ports: []topology.Port{{Protocol: "UDP", Number: 53}, {Protocol: "TCP", Number: 53}}},
			{From: from, To: []topology.Peer{{CIDR: "10.0.0.0/9"}}, Ports: []topology.Port{{Protocol: "TCP", Number: 80, End: 90}}},
			{From: from, To: []topology.Peer{{CIDR: "10.128.0.0/9", Except: []string{"10.200.0.0/16"}}}, Ports: []topology.Port{{Protocol: "TCP", Number: 85}}},
			{From: from, To: []topology.Peer{{CIDR: "2001:db8::/32"}}, Ports: []topology.Port{{Protocol: "TCP"}}},
			{From: report, To: []topology.Peer{{CIDR: "192.0.2.0/24"}}},
		},
	}
}

func TestHoles(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		spec string
		want []string
	}{
		"nothing out":                          {spec: `{policyTypes: [Egress]}`},
		"only in":                              {spec: `{policyTypes: [Ingress], egress: [{}]}`},
		"everything":                           {spec: `{egress: [{}]}`, want: []string{"rule 1: everything"}},
		"everything at a port":                 {spec: `{egress: [{ports: [{port: 443}]}]}`, want: []string{"rule 1: everything"}},
		"pods of the namespace":                {spec: `{egress: [{to: [{podSelector: {}}]}]}`},
		"members":                              {spec: `{egress: [{to: [{namespaceSelector: {matchLabels: {mesh: a}}}]}]}`},
		"some members' pods":                   {spec: `{egress: [{to: [{namespaceSelector: {matchLabels: {mesh: a, team: b}}, podSelector: {matchLabels: {app: x}}}], ports: [{port: 80}]}]}`},
		"members by expression":                {spec: `{egress: [{to: [{namespaceSelector: {matchExpressions: [{key: mesh, operator: In, values: [a]}]}}]}]}`},
		"a member by name":                     {spec: `{egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ship}}}]}]}`},
		"no member by name":                    {spec: `{egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]}]}`, want: []string{"rule 1: namespaces kubernetes.io/metadata.name=kube-system"}},
		"a namespace that is not there":        {spec: `{egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: later}}}]}]}`, want: []string{"rule 1: namespaces kubernetes.io/metadata.name=later"}},
		"every namespace":                      {spec: `{egress: [{to: [{namespaceSelector: {}}]}]}`, want: []string{"rule 1: namespaces <none>"}},
		"members of one of two":                {spec: `{egress: [{to: [{namespaceSelector: {matchExpressions: [{key: mesh, operator: In, values: [a, b]}]}}]}]}`, want: []string{"rule 1: namespaces mesh in (a,b)"}},
		"whoever has the label":                {spec: `{egress: [{to: [{namespaceSelector: {matchExpressions: [{key: mesh, operator: Exists}]}}]}]}`, want: []string{"rule 1: namespaces mesh"}},
		"the cluster's DNS":                    {spec: `{egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: 53, protocol: UDP}]}]}`},
		"the cluster's DNS at another port":    {spec: `{egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: 54, protocol: UDP}]}]}`, want: []string{"rule 1: namespaces kubernetes.io/metadata.name=kube-system pods k8s-app=kube-dns"}},
		"an address":                           {spec: `{egress: [{to: [{ipBlock: {cidr: 10.1.2.3/32}}], ports: [{port: 80}]}]}`},
		"an address at every port":             {spec: `{egress: [{to: [{ipBlock: {cidr: 10.1.2.3/32}}]}]}`, want: []string{"rule 1: ipBlock 10.1.2.3/32"}},
		"an address by UDP":                    {spec: `{egress: [{to: [{ipBlock: {cidr: 10.1.2.3/32}}], ports: [{port: 80, protocol: UDP}]}]}`, want: []string{"rule 1: ipBlock 10.1.2.3/32"}},
		"an address by SCTP":                   {spec: `{egress: [{to: [{ipBlock: {cidr: 10.1.2.3/32}}], ports: [{protocol: SCTP}]}]}`, want: []string{"rule 1: ipBlock 10.1.2.3/32"}},
		"a range of ports":                     {spec: `{egress: [{to: [{ipBlock: {cidr: 10.1.2.3/32}}], ports: [{port: 81, endPort: 90}]}]}`},
		"a range of ports that is too long":    {spec: `{egress: [{to: [{ipBlock: {cidr: 10.1.2.3/32}}], ports: [{port: 81, endPort: 91}]}]}`, want: []string{"rule 1: ipBlock 10.1.2.3/32"}},
		"two ranges that join":                 {spec: `{egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.200.0.0/16]}}], ports: [{port: 85}]}]}`},
		"two ranges with a gap":                {spec: `{egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 85}]}]}`, want: []string{"rule 1: ipBlock 10.0.0.0/8"}},
		"two ranges at a port of one":          {spec: `{egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.200.0.0/16]}}], ports: [{port: 85, endPort: 86}]}]}`, want: []string{"rule 1: ipBlock 10.0.0.0/8"}},
		"every address but private ones":       {spec: `{egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}], ports: [{port: 80}]}]}`, want: []string{"rule 1: ipBlock 0.0.0.0/0"}},
		"IPv6":                                 {spec: `{egress: [{to: [{ipBlock: {cidr: "2001:db8:1::/48"}}], ports: [{port: 443}]}]}`},
		"another range of IPv6":                {spec: `{egress: [{to: [{ipBlock: {cidr: "2001:db9::/32"}}], ports: [{port: 443}]}]}`, want: []string{"rule 1: ipBlock 2001:db9::/32"}},
		"a named port":                         {spec: `{egress: [{to: [{podSelector: {}}], ports: [{port: http}]}]}`},
		"a named port of an address":           {spec: `{egress: [{to: [{ipBlock: {cidr: 10.1.2.3/32}}], ports: [{port: http}]}]}`, want: []string{"rule 1: ipBlock 10.1.2.3/32"}},
		"a bypass for those who have it":       {spec: `{podSelector: {matchLabels: {app: report, v: "1"}}, egress: [{to: [{ipBlock: {cidr: 192.0.2.7/32}}]}]}`},
		"a bypass for those who have it not":   {spec: `{podSelector: {matchLabels: {app: web}}, egress: [{to: [{ipBlock: {cidr: 192.0.2.7/32}}]}]}`, want: []string{"rule 1: ipBlock 192.0.2.7/32"}},
		"a bypass for everybody":               {spec: `{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 192.0.2.7/32}}]}]}`, want: []string{"rule 1: ipBlock 192.0.2.7/32"}},
		"a hole among rules that are in order": {spec: `{egress: [{to: [{podSelector: {}}]}, {to: [{podSelector: {}}, {ipBlock: {cidr: 8.8.8.8/32}}]}]}`, want: []string{"rule 2: ipBlock 8.8.8.8/32"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p"}}
			if err := yaml.UnmarshalStrict([]byte(tt.spec), &np.Spec); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, cluster().Holes(np)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
