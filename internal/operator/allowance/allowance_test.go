// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package allowance_test

import (
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/operator/allowance"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

func facts() allowance.Facts {
	return allowance.Facts{
		Topology: "default", Namespace: "isthmus-system", OperatorNamespace: "isthmus-operator",
		Members: []metav1.LabelSelector{{MatchLabels: map[string]string{"istio.io/rev": "default"}}},
		DNS: allowance.Service{
			Namespace: "kube-system", Selector: map[string]string{"k8s-app": "kube-dns"},
			Addresses: []string{"10.96.0.10", "10.244.0.5"}, Ports: []topology.Port{{Protocol: "UDP", Number: 53}, {Protocol: "TCP", Number: 53}},
		},
		NodeDNS: allowance.Service{
			Namespace: "kube-system", Selector: map[string]string{"k8s-app": "node-local-dns"}, Addresses: []string{"169.254.20.10", "10.96.0.10"},
		},
		APIServer: allowance.Service{Addresses: []string{"10.96.0.1", "192.168.1.10", "fd00::1"}, Ports: []topology.Port{{Protocol: "TCP", Number: 443}, {Protocol: "TCP", Number: 6443}}},
	}
}

// from lists what the peer may reach, by reason.
func from(flows []topology.Flow, p topology.Peer) map[string][]topology.Peer {
	out := map[string][]topology.Peer{}
	for _, f := range flows {
		if reflect.DeepEqual(f.From, p) {
			out[f.Why] = append(out[f.Why], f.To...)
		}
	}
	return out
}

func TestMembersReachTheMeshAndNothingElse(t *testing.T) {
	f := facts()
	got := from(allowance.Flows(f), topology.Peer{Namespaces: &f.Members[0]})
	part := func(c string) []topology.Peer { return []topology.Peer{allowance.Part("default", "isthmus-system", c)} }
	want := map[string][]topology.Peer{
		"Names are resolved by the cluster's DNS.": {
			{Namespace: "kube-system", Pods: &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": "kube-dns"}}},
			{Namespace: "kube-system", Pods: &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": "node-local-dns"}}},
			{CIDR: "10.96.0.10/32"}, {CIDR: "10.244.0.5/32"}, {CIDR: "169.254.20.10/32"},
		},
		"Proxies ask the control plane.":                                    part(v1alpha1.ComponentControlPlane),
		"Members talk to each other.":                                       {{Namespaces: &f.Members[0]}},
		"Members may call in by an ingress gateway.":                        part(v1alpha1.ComponentIngressGateway),
		"Registered external hosts are reached through the egress gateway.": part(v1alpha1.ComponentEgressGateway),
		"The API server.":                                                   {{CIDR: "10.96.0.1/32"}, {CIDR: "192.168.1.10/32"}, {CIDR: "fd00::1/128"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhatSpecAdds(t *testing.T) {
	tests := map[string]struct {
		change func(*allowance.Facts)
		why    string
		want   []topology.Flow
	}{
		"a bypass opens both protocols for its pods only": {
			change: func(f *allowance.Facts) {
				f.Bypass = []topology.Bypass{{
					Name: "db", CIDR: "10.20.0.0/16", Ports: []int{5432}, Pods: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "report"}},
					Namespaces: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "a"}},
				}}
			},
			why: "spec.egress.bypass: db.",
			want: []topology.Flow{{
				From: topology.Peer{
					Namespaces: &metav1.LabelSelector{
						MatchLabels:      map[string]string{"istio.io/rev": "default"},
						MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "team", Operator: metav1.LabelSelectorOpIn, Values: []string{"a"}}},
					},
					Pods: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "report"}},
				},
				To:    []topology.Peer{{CIDR: "10.20.0.0/16"}},
				Ports: []topology.Port{{Protocol: "TCP", Number: 5432}, {Protocol: "UDP", Number: 5432}},
				Why:   "spec.egress.bypass: db.",
			}},
		},
		"an opening names pods": {
			change: func(f *allowance.Facts) {
				end := int32(9100)
				f.Allow = []v1alpha1.Allow{{
					Name: "metrics", To: v1alpha1.AllowPeer{NamespaceSelector: &metav1.LabelSelector{}},
					Ports: []v1alpha1.AllowPort{{Number: 9090, End: &end, Protocol: "TCP"}},
				}}
			},
			why: "spec.egress.networkPolicy.allow: metrics.",
			want: []topology.Flow{{
				From:  topology.Peer{Namespaces: &metav1.LabelSelector{MatchLabels: map[string]string{"istio.io/rev": "default"}}},
				To:    []topology.Peer{{Namespaces: &metav1.LabelSelector{}}},
				Ports: []topology.Port{{Protocol: "TCP", Number: 9090, End: 9100}},
				Why:   "spec.egress.networkPolicy.allow: metrics.",
			}},
		},
		"no API server for members": {
			change: func(f *allowance.Facts) { f.APIServerForMembers = v1alpha1.APIServerNone },
			why:    "The API server.",
			want: []topology.Flow{{
				From:  allowance.Part("default", "isthmus-system", v1alpha1.ComponentControlPlane),
				To:    []topology.Peer{{CIDR: "10.96.0.1/32"}, {CIDR: "192.168.1.10/32"}, {CIDR: "fd00::1/128"}},
				Ports: []topology.Port{{Protocol: "TCP", Number: 443}, {Protocol: "TCP", Number: 6443}},
				Why:   "The API server.",
			}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := facts()
			tt.change(&f)
			got := slices.DeleteFunc(allowance.Flows(f), func(l topology.Flow) bool { return l.Why != tt.why })
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestNobodyButTheGatewayLeaves(t *testing.T) {
	f := facts()
	gateway := allowance.Part("default", "isthmus-system", v1alpha1.ComponentEgressGateway)
	for _, l := range allowance.Flows(f) {
		for _, to := range l.To {
			if to.CIDR != "0.0.0.0/0" && to.CIDR != "::/0" {
				continue
			}
			if !reflect.DeepEqual(l.From, gateway) {
				t.Errorf("%+v may leave: %s", l.From, l.Why)
			}
			if len(to.Except) == 0 {
				t.Errorf("the gateway may reach metadata by %s", to.CIDR)
			}
		}
	}
}

func TestFlowsDependOnFactsOnly(t *testing.T) {
	if diff := cmp.Diff(allowance.Flows(facts()), allowance.Flows(facts())); diff != "" {
		t.Error(diff)
	}
	f := facts()
	slices.Reverse(f.DNS.Addresses)
	if diff := cmp.Diff(allowance.Flows(facts()), allowance.Flows(f)); diff != "" {
		t.Errorf("the order of addresses shows: %s", diff)
	}
}

func TestWhatIsNotThereIsNotAllowed(t *testing.T) {
	f := facts()
	f.DNS, f.NodeDNS = allowance.Service{}, allowance.Service{}
	for _, l := range allowance.Flows(f) {
		if len(l.To) == 0 {
			t.Errorf("a flow to nobody, which a NetworkPolicy takes for everybody: %+v", l)
		}
	}
}

func TestTheEgressGatewayIsNobodysWayToTheAPIServer(t *testing.T) {
	f := facts()
	got := map[string][]string{}
	for why, peers := range from(allowance.Flows(f), allowance.Part("default", "isthmus-system", v1alpha1.ComponentEgressGateway)) {
		for _, p := range peers {
			if len(p.Except) > 0 {
				t.Log(why)
				got[p.CIDR] = p.Except
			}
		}
	}
	want := map[string][]string{
		"0.0.0.0/0": {"127.0.0.0/8", "169.254.0.0/16", "10.96.0.1/32", "192.168.1.10/32"},
		"::/0":      {"::1/128", "fe80::/10", "fd00:ec2::254/128", "fd00::1/128"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
