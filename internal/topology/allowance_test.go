// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"net/netip"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

func labelled(key, value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

func flows() []Flow {
	return []Flow{
		{From: Peer{Namespaces: labelled("mesh", "yes")}, To: []Peer{{Namespaces: labelled("mesh", "yes")}}},
		{
			From: Peer{Namespaces: labelled("mesh", "yes")}, To: []Peer{{Namespace: "dns", Pods: labelled("app", "dns")}},
			Ports: []Port{{Protocol: "UDP", Number: 53}, {Protocol: "TCP", Number: 53}},
		},
		{
			From: Peer{Namespaces: labelled("mesh", "yes"), Pods: labelled("app", "report")},
			To:   []Peer{{CIDR: "10.20.0.0/16", Except: []string{"10.20.9.0/24"}}}, Ports: []Port{{Protocol: "TCP", Number: 5000, End: 5999}},
		},
		{From: Peer{Namespace: "elsewhere"}, To: []Peer{{CIDR: "0.0.0.0/0"}}},
		{From: Peer{Namespaces: labelled("mesh", "yes")}, To: []Peer{{CIDR: "192.0.2.0/24"}}, Ports: []Port{{Protocol: "UDP"}}},
	}
}

func TestReach(t *testing.T) {
	t.Parallel()
	member := Place{Namespace: "shop", Labels: labels.Set{"mesh": "yes"}}
	stranger := Place{Namespace: "legacy"}
	all, err := CompileAllowance(flows())
	if err != nil {
		t.Fatal(err)
	}
	as := func(at Place, pod labels.Set) Reach {
		return all.Reach(all.FlowsFrom(at), func(s labels.Selector) bool { return s.Matches(pod) })
	}
	report, plain := as(member, labels.Set{"app": "report"}), as(member, nil)
	address := netip.MustParseAddr
	tests := map[string]struct{ got, want bool }{
		"a member reaches a member":                        {plain.ToPod(member, nil, 80), true},
		"a member does not reach other pods":               {plain.ToPod(stranger, nil, 80), false},
		"nobody else reaches a member":                     {as(stranger, nil).ToPod(member, nil, 80), false},
		"some pods by their labels":                        {plain.ToPod(Place{Namespace: "dns"}, labels.Set{"app": "dns"}, 53), true},
		"not others beside them":                           {plain.ToPod(Place{Namespace: "dns"}, labels.Set{"app": "x"}, 53), false},
		"not on other ports":                               {plain.ToPod(Place{Namespace: "dns"}, labels.Set{"app": "dns"}, 80), false},
		"some pods of a namespace are enough to ask":       {plain.ToNamespace(Place{Namespace: "dns"}, 0), true},
		"an address for the pods that the flow is for":     {report.ToAddress(address("10.20.1.1"), 5432), true},
		"an IPv4 address written as IPv6":                  {report.ToAddress(address("::ffff:10.20.1.1"), 5432), true},
		"not for the others":                               {plain.ToAddress(address("10.20.1.1"), 5432), false},
		"not an exception":                                 {report.ToAddress(address("10.20.9.1"), 5432), false},
		"not beyond the end of the ports":                  {report.ToAddress(address("10.20.1.1"), 6000), false},
		"a range that is covered whole":                    {report.ToRange(netip.MustParsePrefix("10.20.4.0/24"), 5432), true},
		"not a range with an exception in it":              {report.ToRange(netip.MustParsePrefix("10.20.8.0/21"), 5432), false},
		"not a wider range":                                {report.ToRange(netip.MustParsePrefix("10.0.0.0/8"), 5432), false},
		"not by TCP what is open to UDP":                   {plain.ToAddress(address("192.0.2.1"), 80), false},
		"everywhere":                                       {as(Place{Namespace: "elsewhere"}, nil).Anywhere(address("10.0.0.1"), 80), true},
		"everywhere of one family is nowhere of the other": {as(Place{Namespace: "elsewhere"}, nil).Anywhere(address("::1"), 80), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.got != tt.want {
				t.Errorf("allowed: %v", tt.got)
			}
		})
	}
}

func TestAFlowThatDoesNotCompileAllowsNothing(t *testing.T) {
	t.Parallel()
	a, err := CompileAllowance([]Flow{{From: Peer{Namespace: "a"}, To: []Peer{{CIDR: "everywhere"}}}})
	if err == nil || !strings.Contains(err.Error(), "allowance[0]") {
		t.Errorf("error %v does not name the flow", err)
	}
	if !a.Restricts() {
		t.Error("there is no restriction any more")
	}
	if r := a.Reach(a.FlowsFrom(Place{Namespace: "a"}), nil); r.ToAddress(netip.MustParseAddr("10.0.0.1"), 80) {
		t.Error("everything is allowed")
	}
}
