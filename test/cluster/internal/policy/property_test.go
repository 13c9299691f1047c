// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// flow is what a packet of the original direction shows.
type flow struct {
	from, to netip.Addr
	protocol corev1.Protocol
	port     uint16
}

func (f flow) String() string { return fmt.Sprintf("%s to %s %s %d", f.from, f.to, f.protocol, f.port) }

// permits asks the rules, as the kernel does.
func permits(r Rules, f flow) bool {
	for _, p := range r.Pods {
		for _, ip := range p.IPs {
			if ip == f.from && f.from == f.to {
				return true
			}
			if ip == f.from && p.Egress != nil && !p.Egress.allows(f.to, f) {
				return false
			}
			if ip == f.to && p.Ingress != nil && !p.Ingress.allows(f.from, f) {
				return false
			}
		}
	}
	return true
}

func (d *Direction) allows(peer netip.Addr, f flow) bool {
	for _, a := range d.Allows {
		if a.covers(peer) && a.opens(f) {
			return true
		}
	}
	return false
}

func (a Allow) covers(peer netip.Addr) bool {
	for _, r := range a.Peers {
		if r.Contains(peer) {
			return true
		}
	}
	return a.Peers == nil
}

func (a Allow) opens(f flow) bool {
	for _, p := range a.Ports {
		if p.Protocol == f.protocol && p.From <= f.port && f.port <= p.To {
			return true
		}
	}
	return a.Ports == nil
}

// allowed is the definition of NetworkPolicy, asked for one flow at a time, to
// compare the compiled rules with.
func allowed(s State, f flow) bool {
	if f.from == f.to {
		return true
	}
	src, dst := owner(s, f.from), owner(s, f.to)
	return (src == nil || end(s, src, dst, f.to, f, networkingv1.PolicyTypeEgress)) &&
		(dst == nil || end(s, dst, src, f.from, f, networkingv1.PolicyTypeIngress))
}

func owner(s State, ip netip.Addr) *Pod {
	for i, p := range s.Pods {
		if slices.Contains(p.IPs, ip) {
			return &s.Pods[i]
		}
	}
	return nil
}

func end(s State, own, peer *Pod, peerIP netip.Addr, f flow, direction networkingv1.PolicyType) bool {
	isolated := false
	for _, np := range s.Policies {
		if np.Namespace != own.Namespace || !selected(&np.Spec.PodSelector, own.Labels) {
			continue
		}
		for _, t := range np.Spec.PolicyTypes {
			if t != direction {
				continue
			}
			isolated = true
			if direction == networkingv1.PolicyTypeIngress {
				for _, r := range np.Spec.Ingress {
					if anyPeer(s, np.Namespace, r.From, peer, peerIP) && anyPort(r.Ports, own, f) {
						return true
					}
				}
				continue
			}
			for _, r := range np.Spec.Egress {
				if egressRule(s, np.Namespace, r, peer, peerIP, f) {
					return true
				}
			}
		}
	}
	return !isolated
}

// egressRule honours names of ports only where the peer is meant by selectors.
func egressRule(s State, ns string, r networkingv1.NetworkPolicyEgressRule, peer *Pod, ip netip.Addr, f flow) bool {
	if len(r.To) == 0 {
		return anyPort(r.Ports, peer, f)
	}
	for _, p := range r.To {
		if !anyPeer(s, ns, []networkingv1.NetworkPolicyPeer{p}, peer, ip) {
			continue
		}
		named := peer
		if p.IPBlock != nil {
			named = nil
		}
		if anyPort(r.Ports, named, f) {
			return true
		}
	}
	return false
}

func anyPeer(s State, ns string, peers []networkingv1.NetworkPolicyPeer, peer *Pod, ip netip.Addr) bool {
	for _, p := range peers {
		if p.IPBlock != nil {
			if netip.MustParsePrefix(p.IPBlock.CIDR).Contains(ip) && !anyContains(p.IPBlock.Except, ip) {
				return true
			}
			continue
		}
		if peer == nil {
			continue
		}
		inNamespace := peer.Namespace == ns
		if p.NamespaceSelector != nil {
			inNamespace = selected(p.NamespaceSelector, s.Namespaces[peer.Namespace])
		}
		if inNamespace && (p.PodSelector == nil || selected(p.PodSelector, peer.Labels)) {
			return true
		}
	}
	return len(peers) == 0
}

func anyContains(cidrs []string, ip netip.Addr) bool {
	for _, c := range cidrs {
		if netip.MustParsePrefix(c).Contains(ip) {
			return true
		}
	}
	return false
}

func anyPort(ports []networkingv1.NetworkPolicyPort, named *Pod, f flow) bool {
	for _, p := range ports {
		if *p.Protocol != f.protocol {
			continue
		}
		switch {
		case p.Port == nil:
			return true
		case p.Port.Type == intstr.String:
			if named != nil && hasPort(named, p.Port.StrVal, f) {
				return true
			}
		case p.EndPort != nil:
			if int32(f.port) >= p.Port.IntVal && int32(f.port) <= *p.EndPort {
				return true
			}
		case int32(f.port) == p.Port.IntVal:
			return true
		}
	}
	return len(ports) == 0
}

func hasPort(p *Pod, name string, f flow) bool {
	for _, n := range p.Ports {
		if n.Name == name && n.Protocol == f.protocol && n.Port == f.port {
			return true
		}
	}
	return false
}

func selected(s *metav1.LabelSelector, l map[string]string) bool {
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		panic(err)
	}
	return sel.Matches(labels.Set(l))
}

// world draws clusters from few names, labels, addresses and ports, so that what
// it draws often meets.
type world struct{ *rand.Rand }

func (w world) state() State {
	s := State{Namespaces: map[string]map[string]string{"a": {"team": "x"}, "b": {"team": "y"}, "c": nil}}
	for i := range 1 + w.IntN(6) {
		s.Pods = append(s.Pods, Pod{
			Namespace: pick(w, "a", "b", "c"), Name: fmt.Sprint("p", i), Labels: w.labels(),
			IPs: w.addresses(byte(i)), Ports: w.namedPorts(),
		})
	}
	for i := range w.IntN(5) {
		s.Policies = append(s.Policies, w.policy(i))
	}
	return s
}

// addresses are a pod's: of both families, or of one.
func (w world) addresses(last byte) []netip.Addr {
	v4, v6 := netip.AddrFrom4([4]byte{10, 0, 0, last}), netip.AddrFrom16([16]byte{0xfd, 15: last})
	return pick(w, []netip.Addr{v4, v6}, []netip.Addr{v6, v4}, []netip.Addr{v4}, []netip.Addr{v6})
}

func pick[T any](w world, of ...T) T { return of[w.IntN(len(of))] }

func (w world) labels() map[string]string {
	return pick(w, nil, map[string]string{"app": "x"}, map[string]string{"app": "y"}, map[string]string{"app": "x", "tier": "z"})
}

func (w world) namedPorts() []NamedPort {
	return pick(w, nil,
		[]NamedPort{{"web", corev1.ProtocolTCP, 80}},
		[]NamedPort{{"web", corev1.ProtocolTCP, 81}, {"dns", corev1.ProtocolUDP, 80}},
		[]NamedPort{{"web", corev1.ProtocolUDP, 82}})
}

func (w world) selector() metav1.LabelSelector {
	return pick(w, metav1.LabelSelector{},
		metav1.LabelSelector{MatchLabels: map[string]string{"app": "x"}},
		metav1.LabelSelector{MatchLabels: map[string]string{"team": "x"}},
		metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "tier", Operator: metav1.LabelSelectorOpDoesNotExist}}})
}

func (w world) policy(i int) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: pick(w, "a", "b"), Name: fmt.Sprint("np", i)}}
	np.Spec.PodSelector = w.selector()
	np.Spec.PolicyTypes = pick(w, []networkingv1.PolicyType{"Ingress"}, []networkingv1.PolicyType{"Egress"}, []networkingv1.PolicyType{"Ingress", "Egress"})
	for range w.IntN(3) {
		np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: w.peers(), Ports: w.ports()})
		np.Spec.Egress = append(np.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: w.peers(), Ports: w.ports()})
	}
	return np
}

func (w world) peers() []networkingv1.NetworkPolicyPeer {
	var peers []networkingv1.NetworkPolicyPeer
	for range w.IntN(3) {
		a, b := w.selector(), w.selector()
		peers = append(peers, pick(w,
			networkingv1.NetworkPolicyPeer{PodSelector: &a},
			networkingv1.NetworkPolicyPeer{NamespaceSelector: &a},
			networkingv1.NetworkPolicyPeer{NamespaceSelector: &a, PodSelector: &b},
			networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/29", Except: pick(w, nil, []string{"10.0.0.2/31"}, []string{"10.0.0.0/32", "10.0.0.7/32"})}},
			networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "fd00::/125", Except: pick(w, nil, []string{"fd00::2/127"}, []string{"fd00::/128", "fd00::7/128"})}},
			networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "::/0", Except: pick(w, nil, []string{"2001:db8::/32"}, []string{"::/1"})}},
			networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "0.0.0.0/0", Except: pick(w, nil, []string{"203.0.113.0/24"}, []string{"0.0.0.0/1"})}}))
	}
	return peers
}

func (w world) ports() []networkingv1.NetworkPolicyPort {
	var ports []networkingv1.NetworkPolicyPort
	for range w.IntN(3) {
		proto := pick(w, corev1.ProtocolTCP, corev1.ProtocolUDP)
		number, name, end := intstr.FromInt32(80), intstr.FromString(pick(w, "web", "dns")), int32(81)
		ports = append(ports, pick(w,
			networkingv1.NetworkPolicyPort{Protocol: &proto},
			networkingv1.NetworkPolicyPort{Protocol: &proto, Port: &number},
			networkingv1.NetworkPolicyPort{Protocol: &proto, Port: &number, EndPort: &end},
			networkingv1.NetworkPolicyPort{Protocol: &proto, Port: &name}))
	}
	return ports
}

// flows are all that can differ in such a world.
func flows(s State) []flow {
	var ips []netip.Addr
	for _, ip := range []string{"203.0.113.10", "0.0.0.1", "255.255.255.255", "2001:db8::10", "::2", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"} {
		ips = append(ips, netip.MustParseAddr(ip))
	}
	for _, p := range s.Pods {
		ips = append(ips, p.IPs...)
	}
	var all []flow
	for _, from := range ips {
		for _, to := range ips {
			if from.Is4() != to.Is4() {
				continue
			}
			for _, proto := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP} {
				for port := uint16(79); port <= 82; port++ {
					all = append(all, flow{from: from, to: to, protocol: proto, port: port})
				}
			}
		}
	}
	return all
}

func compareWithDefinition(t *testing.T, seed uint64) {
	t.Helper()
	s := world{rand.New(rand.NewPCG(seed, 1))}.state()
	rules := Compile(s, Options{})
	for _, f := range flows(s) {
		if got, want := permits(rules, f), allowed(s, f); got != want {
			t.Fatalf("seed %d: %s: rules say %t, the definition says %t\nrules %+v", seed, f, got, want, rules)
		}
	}
}

func TestRulesAgreeWithDefinition(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2000) {
		compareWithDefinition(t, seed)
	}
}

func FuzzRulesAgreeWithDefinition(f *testing.F) {
	f.Add(uint64(0))
	f.Fuzz(compareWithDefinition)
}
