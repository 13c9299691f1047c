// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/test/netlab/probe"
)

// trail returns what tells, each time it is called, what proxies have noted of the
// request so far.
//
// An application, or a proxy, may use one port at once for connections to several
// places. Where all of them are redirected to one address of a proxy, the kernel
// gives the later ones other ports on the way, and the proxy notes those.
func (l *Lab) trail(r probe.Result) func() []probe.Hop {
	begun, known := time.Now(), map[string]string{}
	seen := func(from, to string) string {
		// Nearly always the proxy has just not written yet: the kernel is asked once.
		if time.Since(begun) < noted/2 {
			return from
		}
		if _, ok := known[from+to]; !ok {
			known[from+to] = l.translated(from, to)
		}
		return known[from+to]
	}
	return func() []probe.Hop { return l.hops(r, seen) }
}

// translated is from where the connection comes by the tables of the machines at
// its ends, if one of them made another of its port.
func (l *Lab) translated(from, to string) string {
	source, err := netip.ParseAddrPort(from)
	if err != nil {
		return from
	}
	target, err := netip.ParseAddrPort(to)
	if err != nil {
		return from
	}
	family := "ipv4"
	if source.Addr().Is6() {
		family = "ipv6"
	}
	for _, p := range l.pods {
		if !p.has(source.Addr()) && !p.has(target.Addr()) {
			continue
		}
		out, err := run(l.t.Context(), p.space, program{name: "conntrack", uid: uidRoot, args: []string{
			"conntrack", "-L", "-f", family, "-p", "tcp",
			"-s", source.Addr().String(), "--sport", strconv.Itoa(int(source.Port())),
			"-d", target.Addr().String(), "--dport", strconv.Itoa(int(target.Port())),
		}})
		l.must(err)
		if came, ok := answered(string(out), source.Addr().String()); ok && came != from {
			return came
		}
	}
	return from
}

// answered is where answers go by a line of the table, whose last port is that of
// the other direction's destination.
func answered(line, host string) (string, bool) {
	i := strings.LastIndex(line, "dport=")
	if i < 0 {
		return "", false
	}
	port, _, _ := strings.Cut(line[i+len("dport="):], " ")
	return net.JoinHostPort(host, port), true
}

// FewPorts leaves the pod two ports to connect from, so that connections to three
// hosts share one.
func (p *Pod) FewPorts() {
	p.lab.t.Helper()
	p.lab.must(p.space.do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40001"), 0o600)
	}))
}
