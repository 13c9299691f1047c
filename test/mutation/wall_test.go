// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package mutation

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
)

const (
	tcp = corev1.ProtocolTCP
	udp = corev1.ProtocolUDP
)

var (
	dnsPod   = party{namespace: "kube-system", labels: map[string]string{"k8s-app": "kube-dns"}, address: "10.244.0.3"}
	otherDNS = party{namespace: "strangers", labels: map[string]string{"k8s-app": "kube-dns"}, address: "10.244.0.4"}
	nodeDNS  = party{namespace: "kube-system", labels: map[string]string{"k8s-app": "node-local-dns"}, address: "10.244.0.6"}
	isthmusd = part(v1alpha1.ComponentControlPlane)
	ingress  = part(v1alpha1.ComponentIngressGateway)
	egress   = part(v1alpha1.ComponentEgressGateway)
	operator = pod("isthmus-operator", "app=isthmus-operator")
)

// elsewhere is a pod that carries the same labels in a namespace of somebody's own.
func elsewhere(p party) party { p.namespace = "strangers"; return p }

// unlabelled is a pod that lacks one of the labels.
func unlabelled(p party, key string) party {
	l := map[string]string{}
	for k, v := range p.labels {
		if k != key {
			l[k] = v
		}
	}
	p.labels = l
	return p
}

// flow is a case: who may reach whom at which port.
type flow struct {
	connection
	allowed bool
	// side is the only one that is asked, where both would answer; empty for both.
	side networkingv1.PolicyType
	// strict cases are asked only where an ipBlock does not mean pods.
	strict bool
}

func may(from, to party, protocol corev1.Protocol, port int32) flow {
	return flow{connection: connection{from, to, protocol, port}, allowed: true}
}

func mayNot(from, to party, protocol corev1.Protocol, port int32) flow {
	return flow{connection: connection{from, to, protocol, port}}
}

// leavesNot is for what the other end refuses as well.
func leavesNot(from, to party, port int32) flow {
	f := mayNot(from, to, tcp, port)
	f.side = networkingv1.PolicyTypeEgress
	return f
}

func entersNot(from, to party, port int32) flow {
	f := mayNot(from, to, tcp, port)
	f.side = networkingv1.PolicyTypeIngress
	return f
}

// strictly is for what an ipBlock would open where it means pods too.
func strictly(f flow) flow { f.strict = true; return f }

// wall is what holds in topology EgressGateway, told without looking at policies.
func wall() map[string][]flow {
	members := map[string]party{"shop": pod("shop", "app=client"), "bank": pod("bank", "app=client"), "both": pod("both", "app=client")}
	cases := map[string][]flow{}
	for name, m := range members {
		cases["a pod in "+name] = memberCases(m)
		for other, to := range members {
			cases["from "+name+" to "+other] = []flow{may(m, to, tcp, 8080), may(m, to, udp, 5000)}
		}
	}
	cases["the egress gateway"] = egressCases(members["shop"])
	cases["an ingress gateway"] = ingressCases(members)
	cases["the control plane"] = controlPlaneCases(members["shop"])
	return cases
}

// resolves is what everyone has who is kept in otherwise: names.
func resolves(from party) []flow {
	return []flow{
		may(from, dnsPod, udp, 53), may(from, dnsPod, tcp, 53), may(from, at(dnsService), udp, 53), may(from, at(dnsService), tcp, 53),
		may(from, at(nodeLocalDNS), udp, 53), may(from, at(nodeLocalDNS), tcp, 53),
		mayNot(from, dnsPod, tcp, 9153), mayNot(from, at(dnsService), tcp, 443), mayNot(from, otherDNS, udp, 53),
		mayNot(from, pod("kube-system", "app=other"), udp, 53),
		may(from, nodeDNS, udp, 53), may(from, nodeDNS, tcp, 53), mayNot(from, elsewhere(nodeDNS), udp, 53),
	}
}

// asks is the way of a proxy to the control plane and to the egress gateway.
func asks(from party) []flow {
	return []flow{
		may(from, isthmusd, tcp, 15012), may(from, at(controlPlane), tcp, 15012),
		leavesNot(from, isthmusd, 15014), leavesNot(from, isthmusd, 8080), mayNot(from, at(controlPlane), tcp, 15014),
		leavesNot(from, isthmusd, 15016), entersNot(from, isthmusd, 15016), entersNot(from, isthmusd, 15010), entersNot(from, egress, 15000),
		leavesNot(from, unlabelled(isthmusd, v1alpha1.LabelTopology), 15012), leavesNot(from, unlabelled(isthmusd, v1alpha1.LabelComponent), 15012),
		mayNot(from, elsewhere(isthmusd), tcp, 15012), mayNot(from, unlabelled(isthmusd, v1alpha1.LabelTopology), tcp, 15012),
		may(from, egress, tcp, 15443), may(from, at(egressIP), tcp, 15443),
		leavesNot(from, egress, 15000), mayNot(from, at(egressIP), tcp, 15000), mayNot(from, elsewhere(egress), tcp, 15443),
		mayNot(from, unlabelled(egress, v1alpha1.LabelTopology), tcp, 15443), mayNot(from, unlabelled(egress, v1alpha1.LabelComponent), tcp, 15443),
	}
}

func memberCases(from party) []flow {
	direct := from
	direct.labels = map[string]string{"app": "reporter", "egress": "direct"}
	out := []flow{
		mayNot(from, at(outside), tcp, 443), mayNot(from, at(outside), udp, 443), mayNot(from, at(outside), tcp, 53), mayNot(from, at(outside), tcp, 15443),
		mayNot(from, at(outside), tcp, 15012), mayNot(from, at(outside), tcp, 6443), mayNot(from, at(metadata), tcp, 80),
		mayNot(from, pod("strangers", "app=web"), tcp, 8080), mayNot(from, pod("kube-system", "app=web"), tcp, 8080),
		mayNot(from, pod("kube-public"), tcp, 8080), mayNot(from, pod("kube-node-lease"), tcp, 8080),
		mayNot(from, operator, tcp, 8080), mayNot(from, pod("isthmus-system", "app=other"), tcp, 8080),
		may(from, at(apiServer), tcp, 6443), may(from, at(apiService), tcp, 443), mayNot(from, at(apiServer), tcp, 10250), mayNot(from, at(apiService), udp, 443),
		may(from, ingress, tcp, 443), may(from, ingress, tcp, 80), mayNot(from, elsewhere(ingress), tcp, 443),
		mayNot(from, unlabelled(ingress, v1alpha1.LabelTopology), tcp, 443), mayNot(from, unlabelled(ingress, v1alpha1.LabelComponent), tcp, 443),
		may(from, at(permitted), tcp, 8443), mayNot(from, at(permitted), tcp, 443), mayNot(from, at(withheld), tcp, 8443), mayNot(from, at(outside), tcp, 8443),
		may(direct, at(bypassed), tcp, 9000), may(direct, at(bypassed), udp, 9000), mayNot(direct, at(bypassed), tcp, 443), mayNot(direct, at(outside), tcp, 9000),
		mayNot(from, at(bypassed), tcp, 9000), mayNot(direct, at(outside), tcp, 443), mayNot(direct, pod("strangers"), tcp, 9000),
	}
	return append(append(out, resolves(from)...), asks(from)...)
}

func egressCases(m party) []flow {
	out := []flow{
		may(egress, at(outside), tcp, 443), may(egress, at(outside), udp, 443), may(egress, at("2001:db8::1"), tcp, 443),
		mayNot(egress, at(metadata), tcp, 80), mayNot(egress, at("127.0.0.1"), tcp, 80), mayNot(egress, at("::1"), tcp, 80),
		mayNot(egress, at("fe80::1"), tcp, 80), mayNot(egress, at("fd00:ec2::254"), tcp, 80),
		mayNot(egress, at(apiServer), tcp, 6443), mayNot(egress, at(apiService), tcp, 443),
		may(egress, isthmusd, tcp, 15012), may(egress, at(controlPlane), tcp, 15012),
		may(ingress, egress, tcp, 15443), may(isthmusd, egress, tcp, 15443),
		mayNot(pod("strangers"), egress, tcp, 15443), mayNot(pod("strangers"), egress, tcp, 15000), mayNot(at(outside), egress, tcp, 15443),
		mayNot(pod("kube-system"), egress, tcp, 15443), mayNot(pod("kube-public"), egress, tcp, 15443), mayNot(pod("kube-node-lease"), egress, tcp, 15443),
		mayNot(operator, egress, tcp, 15443), mayNot(pod("isthmus-system", "app=other"), egress, tcp, 15443),
		mayNot(elsewhere(ingress), egress, tcp, 15443), mayNot(elsewhere(isthmusd), egress, tcp, 15443),
		may(m, egress, tcp, 15443), mayNot(at(outside), egress, tcp, 15000),
	}
	for _, port := range []int32{15020, 15021, 15090} {
		out = append(out, may(at(outside), egress, tcp, port), may(pod("strangers"), egress, tcp, port))
	}
	for _, from := range []party{ingress, isthmusd} {
		out = append(out, entersNot(from, egress, 15000),
			entersNot(unlabelled(from, v1alpha1.LabelTopology), egress, 15443), entersNot(unlabelled(from, v1alpha1.LabelComponent), egress, 15443))
	}
	out = append(out, strictly(leavesNot(egress, isthmusd, 15016)), strictly(leavesNot(egress, elsewhere(isthmusd), 15012)),
		strictly(leavesNot(egress, unlabelled(isthmusd, v1alpha1.LabelTopology), 15012)), strictly(leavesNot(egress, unlabelled(isthmusd, v1alpha1.LabelComponent), 15012)),
		strictly(mayNot(egress, dnsPod, tcp, 9153)), strictly(mayNot(egress, otherDNS, udp, 53)), strictly(mayNot(egress, elsewhere(nodeDNS), udp, 53)), strictly(mayNot(egress, pod("kube-system"), udp, 53)))
	return append(append(out, notOurs(egress)...), may(egress, dnsPod, udp, 53), may(egress, dnsPod, tcp, 53), may(egress, nodeDNS, udp, 53), may(egress, at(nodeLocalDNS), udp, 53), may(egress, at(nodeLocalDNS), tcp, 53))
}

// notOurs is the same part of another topology in the same namespace: our policies
// are not around it.
func notOurs(p party) []flow {
	l := map[string]string{}
	maps.Copy(l, p.labels)
	l[v1alpha1.LabelTopology] = "another"
	p.labels = l
	return []flow{may(p, at(outside), tcp, 443), may(p, at(metadata), tcp, 80)}
}

func ingressCases(members map[string]party) []flow {
	out := []flow{
		may(at(outside), ingress, tcp, 443), may(pod("strangers"), ingress, tcp, 80),
		mayNot(ingress, at(outside), tcp, 443), mayNot(ingress, at(outside), tcp, 15443), mayNot(ingress, at(outside), tcp, 15012), mayNot(ingress, at(outside), udp, 53),
		mayNot(ingress, pod("strangers"), tcp, 8080), mayNot(ingress, pod("kube-system"), tcp, 8080), mayNot(ingress, pod("kube-public"), tcp, 8080),
		mayNot(ingress, pod("kube-node-lease"), tcp, 8080), mayNot(ingress, operator, tcp, 8080), mayNot(ingress, pod("isthmus-system", "app=other"), tcp, 8080),
		mayNot(ingress, at(apiServer), tcp, 6443), mayNot(ingress, at(metadata), tcp, 80),
	}
	for _, m := range members {
		out = append(out, may(ingress, m, tcp, 8080))
	}
	out = append(out, notOurs(ingress)...)
	return append(append(out, resolves(ingress)...), asks(ingress)...)
}

func controlPlaneCases(m party) []flow {
	out := []flow{
		may(isthmusd, at(apiServer), tcp, 6443), may(isthmusd, at(apiService), tcp, 443), mayNot(isthmusd, at(apiServer), tcp, 10250),
		mayNot(isthmusd, at(outside), tcp, 443), mayNot(isthmusd, at(outside), tcp, 15443), mayNot(isthmusd, at(outside), tcp, 6443), mayNot(isthmusd, m, tcp, 8080),
		may(isthmusd, egress, tcp, 15443), may(isthmusd, at(egressIP), tcp, 15443), mayNot(isthmusd, egress, tcp, 15000), mayNot(isthmusd, elsewhere(egress), tcp, 15443),
		may(at(apiServer), isthmusd, tcp, 15017), may(at(outside), isthmusd, tcp, 15017), may(pod("strangers"), isthmusd, tcp, 15017),
		may(operator, isthmusd, tcp, 8080), may(operator, isthmusd, tcp, 15016),
		may(pod("strangers"), isthmusd, tcp, 15014), may(at(outside), isthmusd, tcp, 15014), may(operator, isthmusd, tcp, 15014),
		mayNot(pod("strangers"), isthmusd, tcp, 8080), mayNot(pod("strangers"), isthmusd, tcp, 15016), mayNot(at(outside), isthmusd, tcp, 15012),
		mayNot(pod("strangers"), isthmusd, tcp, 15012), mayNot(pod("kube-system"), isthmusd, tcp, 15012), mayNot(pod("kube-public"), isthmusd, tcp, 15012),
		mayNot(pod("kube-node-lease"), isthmusd, tcp, 15012), mayNot(operator, isthmusd, tcp, 15012), mayNot(pod("isthmus-system", "app=other"), isthmusd, tcp, 15012),
		mayNot(elsewhere(ingress), isthmusd, tcp, 15012), mayNot(elsewhere(egress), isthmusd, tcp, 15012),
		mayNot(at(outside), isthmusd, tcp, 8080), mayNot(m, isthmusd, tcp, 8080), mayNot(operator, isthmusd, tcp, 15010),
	}
	for _, from := range []party{ingress, egress} {
		out = append(out, entersNot(from, isthmusd, 15016),
			entersNot(unlabelled(from, v1alpha1.LabelTopology), isthmusd, 15012), entersNot(unlabelled(from, v1alpha1.LabelComponent), isthmusd, 15012))
	}
	out = append(out, leavesNot(isthmusd, egress, 15000), leavesNot(isthmusd, unlabelled(egress, v1alpha1.LabelTopology), 15443),
		leavesNot(isthmusd, unlabelled(egress, v1alpha1.LabelComponent), 15443))
	return append(append(out, notOurs(isthmusd)...), resolves(isthmusd)...)
}

func describeFlow(f flow) string {
	word := "may not"
	if f.allowed {
		word = "may"
	}
	return fmt.Sprintf("%v %s reach %v at %s %d", f.from, word, f.to, f.protocol, f.port)
}

// holds tells whether the policies bear the case out, where an ipBlock means pods
// and where it does not.
func holds(set []*networkingv1.NetworkPolicy, f flow) bool {
	for _, strict := range []bool{false, true} {
		w := world{namespaces: namespaces, policies: set, strict: strict}
		got := false
		switch {
		case f.strict && !strict:
			continue
		case f.side == networkingv1.PolicyTypeEgress:
			got = w.direction(f.connection, f.from, f.to, f.side)
		case f.side == networkingv1.PolicyTypeIngress:
			got = w.direction(f.connection, f.to, f.from, f.side)
		default:
			got = w.allows(f.connection)
		}
		if got != f.allowed {
			return false
		}
	}
	return true
}

// spare are rules whose loss nobody notices, and why they are there all the same.
var spare = map[string]string{
	"isthmus-system/isthmus-egress-default: egress rule 0, peer 10.96.0.10/32": "0.0.0.0/0 covers it; one list of DNS addresses for all",
	"isthmus-system/isthmus-egress-default: egress rule 1, peer 10.96.1.1/32":  "0.0.0.0/0 covers it; one way to the control plane for all",
}

func TestEveryRuleOfThePoliciesCounts(t *testing.T) {
	set, cases := rendered(t), wall()
	for name, flows := range cases {
		for _, f := range flows {
			if !holds(set, f) {
				t.Errorf("%s: does not hold: %s", name, describeFlow(f))
			}
		}
	}
	if t.Failed() {
		return
	}
	flows := slices.Concat(slices.Collect(maps.Values(cases))...)
	all := mutants(set)
	for _, m := range all {
		noticed := slices.ContainsFunc(flows, func(f flow) bool { return !holds(m.policies, f) })
		switch why := spare[m.what]; {
		case !noticed && why == "":
			t.Errorf("nobody would notice the loss of %s", m.what)
		case noticed && why != "":
			t.Errorf("the loss of %s is noticed: it is not spare", m.what)
		}
	}
	t.Logf("%d policies, %d cases, %d mutants", len(set), len(flows), len(all))
}
