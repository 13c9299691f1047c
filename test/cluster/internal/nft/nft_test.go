// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"net"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/policy"
)

func single(host string) []policy.Range {
	var all []policy.Range
	for _, ip := range ips(host) {
		all = append(all, policy.Range{From: ip, To: ip})
	}
	return all
}

func ranges(fromTo ...string) []policy.Range {
	var all []policy.Range
	for i := 0; i < len(fromTo); i += 2 {
		all = append(all, policy.Range{From: netip.MustParseAddr(fromTo[i]), To: netip.MustParseAddr(fromTo[i+1])})
	}
	return all
}

func ofA(ingress, egress *policy.Direction) policy.Rules {
	return policy.Rules{Pods: []policy.PodRules{{Pod: "ns/a", IPs: ips("a"), Ingress: ingress, Egress: egress}}}
}

func only(allows ...policy.Allow) *policy.Direction { return &policy.Direction{Allows: allows} }

func TestRulesInTheKernel(t *testing.T) {
	t.Parallel()
	tcp80 := []policy.Ports{{Protocol: corev1.ProtocolTCP, From: 80, To: 80}}
	mixed := []policy.Ports{{Protocol: corev1.ProtocolTCP, From: 81, To: 82}, {Protocol: corev1.ProtocolUDP, From: 80, To: 80}}
	cases := map[string]struct {
		rules        policy.Rules
		settings     Settings
		open, closed []probe
	}{
		"no rules leave all open": {
			open: []probe{"a b tcp 80", "b a udp 81", "a outside tcp 80", "outside b tcp 80", "a node tcp 80", "node a tcp 80", "a service tcp 80"},
		},
		"nothing goes out, but all comes in and is answered": {
			rules:  ofA(nil, only()),
			open:   []probe{"b a tcp 80", "node a udp 80", "outside a tcp 80", "b outside tcp 80"},
			closed: []probe{"a b tcp 80", "a b udp 80", "a outside udp 80", "a node tcp 80", "a service tcp 80"},
		},
		"nothing comes in but from the node": {
			rules:  ofA(only(), nil),
			open:   []probe{"a b tcp 80", "a node tcp 80", "node a tcp 80", "a outside udp 82"},
			closed: []probe{"b a tcp 80", "b a udp 80", "outside a tcp 80"},
		},
		"what is denied may be dropped": {
			rules:  ofA(only(), only()),
			open:   []probe{"node a tcp 80", "b outside tcp 80"},
			closed: []probe{"a b tcp 80", "b a udp 80", "a node udp 80"},
		},
		"peers and ports out": {
			rules:  ofA(nil, only(policy.Allow{Peers: single("b"), Ports: tcp80}, policy.Allow{Peers: single("outside"), Ports: mixed})),
			open:   []probe{"a b tcp 80", "a outside tcp 81", "a outside tcp 82", "a outside udp 80"},
			closed: []probe{"a b tcp 81", "a b udp 80", "a outside tcp 80", "a outside udp 81", "a node tcp 80"},
		},
		"peers and ports in": {
			rules:  ofA(only(policy.Allow{Peers: single("b"), Ports: mixed}), nil),
			open:   []probe{"b a tcp 81", "b a udp 80", "a outside tcp 80"},
			closed: []probe{"b a tcp 80", "b a udp 81", "outside a tcp 81"},
		},
		"everyone at some ports": {
			rules:  ofA(nil, only(policy.Allow{Ports: tcp80})),
			open:   []probe{"a b tcp 80", "a outside tcp 80", "a node tcp 80"},
			closed: []probe{"a b tcp 81", "a outside udp 80"},
		},
		"a block without its middle": {
			rules: ofA(nil, only(policy.Allow{Block: true, Peers: ranges(
				"10.9.0.0", "10.9.0.1", "10.9.0.3", "255.255.255.255", "::", "fd00:9::1", "fd00:9::3", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")})),
			open:   []probe{"a outside tcp 80", "a node tcp 80"},
			closed: []probe{"a b tcp 80"},
		},
		"a block of one family is none of the other": {
			rules:  ofA(nil, only(policy.Allow{Block: true, Peers: ranges("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")})),
			open:   []probe{"a b6 tcp 80", "a outside6 udp 80"},
			closed: []probe{"a b4 tcp 80", "a outside4 udp 80"},
		},
		"and the other way": {
			rules:  ofA(only(policy.Allow{Block: true, Peers: ranges("0.0.0.0", "255.255.255.255")}), nil),
			open:   []probe{"b a4 tcp 80", "outside a4 udp 80"},
			closed: []probe{"b a6 tcp 80", "outside a6 udp 80"},
		},
		"blocks mean whom a service leads to": {
			rules:  ofA(nil, only(policy.Allow{Block: true, Peers: single("b")})),
			open:   []probe{"a service tcp 80", "a b tcp 81"},
			closed: []probe{"a outside tcp 80"},
		},
		"or the service itself": {
			settings: Settings{BeforeTranslation: true},
			rules:    ofA(nil, only(policy.Allow{Block: true, Peers: single("service"), Ports: tcp80})),
			open:     []probe{"a service tcp 80"},
			closed:   []probe{"a b tcp 81", "a b tcp 80"},
		},
	}
	for name, c := range cases {
		for _, rejects := range []bool{true, false} {
			t.Run(name+map[bool]string{true: ", rejecting", false: ", dropping"}[rejects], func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				settings := c.settings
				settings.Reject = rejects
				w.program(c.rules, settings)
				w.open(c.open...)
				w.closed(rejects, c.closed...)
			})
		}
	}
}

func TestEstablishedConnections(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		settings Settings
		kept     bool
	}{
		"are cut by rules that forbid them": {settings: Settings{Reject: true}},
		"or kept, if that is the setting":   {settings: Settings{Reject: true, KeepEstablished: true}, kept: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.program(policy.Rules{}, c.settings)
			var before []net.Conn
			for _, ip := range hosts["b"] {
				err := w.within("a", func() error {
					conn, err := net.Dial("tcp", net.JoinHostPort(ip, "80"))
					before = append(before, conn)
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			for _, conn := range before {
				defer conn.Close()
				if err := say(conn, patience); err != nil {
					t.Fatal(err)
				}
			}
			w.program(ofA(nil, only()), c.settings)
			for _, conn := range before {
				if err := say(conn, patience); (err == nil) != c.kept {
					t.Errorf("to %s: kept: %t (%v), want %t", conn.RemoteAddr(), err == nil, err, c.kept)
				}
			}
			w.closed(true, "a b tcp 80")
		})
	}
}

// TestLinkLocal holds that the addresses that every pod has besides its own are no
// way around its rules.
func TestLinkLocal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.program(ofA(nil, only()), Settings{Reject: true})
	var gateway string
	err := w.within("node", func() error {
		link, err := net.InterfaceByName("a")
		if err != nil {
			return err
		}
		all, err := link.Addrs()
		for _, ip := range all {
			if n, ok := ip.(*net.IPNet); ok && n.IP.IsLinkLocalUnicast() {
				gateway = n.IP.String()
			}
		}
		return err
	})
	if err != nil || gateway == "" {
		t.Fatalf("the node's link-local address is %q (%v)", gateway, err)
	}
	if err := w.ask("a", "tcp", net.JoinHostPort(gateway+"%eth0", "80"), briefly); err == nil {
		t.Error("a pod that may reach nobody reached the node")
	}
}
