// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/test/netlab/probe"
)

// WantConnections makes five requests in a row, again and again, until they took so
// many connections beyond the first proxy.
func (c *Call) WantConnections(n int) {
	l := c.pod.lab
	l.t.Helper()
	c.Until(func(probe.Result) error {
		made := map[string]bool{}
		for _, r := range c.Times(5) {
			made[l.Hop(r).Left] = true
		}
		if len(made) != n {
			return fmt.Errorf("five requests took %d connections, want %d", len(made), n)
		}
		return nil
	})
}

// WantGauge waits until a gauge or counter of the pod's proxy has this value. Those
// that startAgent names are there to be asked for.
func (p *Pod) WantGauge(name string, value int) {
	p.lab.t.Helper()
	p.lab.must(await(patience, func() error {
		b, err := p.Admin("/stats?filter=" + url.QueryEscape("^"+regexp.QuoteMeta(name)+"$"))
		if err != nil {
			return err
		}
		if got := strings.TrimSpace(string(b)); got != name+": "+strconv.Itoa(value) {
			return fmt.Errorf("%s says %q, want %s to be %d", p.Name, got, name, value)
		}
		return nil
	}))
}

// wantIdle waits until the pod's proxy has no connection to the cluster.
func (p *Pod) wantIdle(cluster string) {
	p.lab.t.Helper()
	p.lab.must(await(patience, func() error {
		b, err := p.Admin("/clusters")
		if err != nil {
			return err
		}
		known := false
		for line := range strings.Lines(string(b)) {
			f := strings.Split(strings.TrimSpace(line), "::")
			if len(f) != 4 || f[0] != cluster || f[2] != "cx_active" {
				continue
			}
			if known = true; f[3] != "0" {
				return fmt.Errorf("%s has %s connections to %s of %s", p.Name, f[3], f[1], cluster)
			}
		}
		if !known {
			return fmt.Errorf("%s has no cluster %q with an endpoint", p.Name, cluster)
		}
		return nil
	}))
}

// never says that nothing happens, where a time is expected.
const never = "-"

// keptAlive looks at the socket by which the request left its first proxy: when does
// the kernel probe it?
func (l *Lab) keptAlive(h probe.Hop, after string) error {
	local, err := netip.ParseAddrPort(h.Left)
	if err != nil {
		return fmt.Errorf("the request left by %q: %w", h.Left, err)
	}
	var all []*netlink.Socket
	err = l.Find(h.Proxy).space.do(func() error {
		var err error
		all, err = netlink.SocketDiagTCP(unix.AF_INET)
		return err
	})
	if err != nil {
		return fmt.Errorf("sockets of %s: %w", h.Proxy, err)
	}
	for _, s := range all {
		ip, _ := netip.AddrFromSlice(s.ID.Source.To4())
		if netip.AddrPortFrom(ip, s.ID.SourcePort) == local && s.State == unix.BPF_TCP_ESTABLISHED {
			return probed(s, after)
		}
	}
	return fmt.Errorf("the connection from %s is gone", local)
}

// keepaliveTimer is the kernel's number for it.
const keepaliveTimer = 2

func probed(s *netlink.Socket, after string) error {
	got := time.Duration(s.Expires) * time.Millisecond
	if after == never {
		if s.Timer == keepaliveTimer {
			return fmt.Errorf("it is probed in %s, want never", got)
		}
		return nil
	}
	want, err := time.ParseDuration(after)
	if err != nil {
		return final{err}
	}
	if s.Timer != keepaliveTimer || got > want {
		return fmt.Errorf("its timer %d runs out in %s, want it to be probed after %s", s.Timer, got, want)
	}
	return nil
}
