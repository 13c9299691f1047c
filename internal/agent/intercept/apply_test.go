// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package intercept

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// inThread runs f on an operating system thread of its own that ends with it, so
// that namespaces and credentials which f changes end as well.
func inThread(t *testing.T, f func() error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: making network namespaces needs root")
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// pair is a pod and a peer, each in a network namespace, joined by a veth.
type pair struct{ pod, peer netns.NsHandle }

func newPair() (p pair, err error) {
	if p.peer, err = netns.New(); err != nil {
		return p, fmt.Errorf("new namespace: %w", err)
	}
	if err = up("lo"); err != nil {
		return p, err
	}
	if p.pod, err = netns.New(); err != nil {
		return p, fmt.Errorf("new namespace: %w", err)
	}
	if err = up("lo"); err != nil {
		return p, err
	}
	v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(p.peer)}
	if err = netlink.LinkAdd(v); err != nil {
		return p, fmt.Errorf("add veth: %w", err)
	}
	if err = up("eth0", "10.0.0.2/24", "fd00::2/64"); err != nil {
		return p, err
	}
	if err = netns.Set(p.peer); err != nil {
		return p, err
	}
	if err = up("eth0", "10.0.0.1/24", "fd00::1/64"); err != nil {
		return p, err
	}
	if err = netns.Set(p.pod); err != nil {
		return p, err
	}
	eth, err := netlink.LinkByName("eth0")
	if err != nil {
		return p, err
	}
	for _, gw := range []string{"10.0.0.1", "fd00::1"} {
		if err = netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: net.ParseIP(gw)}); err != nil {
			return p, fmt.Errorf("route by %s: %w", gw, err)
		}
	}
	return p, nil
}

func up(link string, addrs ...string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return fmt.Errorf("find %s: %w", link, err)
	}
	for _, s := range addrs {
		a, err := netlink.ParseAddr(s)
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(l, a); err != nil {
			return fmt.Errorf("add %s to %s: %w", s, link, err)
		}
	}
	return netlink.LinkSetUp(l)
}

// answer says name to whoever connects.
func answer(name string, addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, name)
			_ = c.Close()
		}
	}()
	return nil
}

// ask connects as the given owner and returns who answered.
func ask(ns netns.NsHandle, uid, gid uintptr, from, to string) (string, error) {
	if err := netns.Set(ns); err != nil {
		return "", err
	}
	// The thread's file system ids are what the kernel records as a socket's owner.
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSGID, gid, 0, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, uid, 0, 0)
	defer func() {
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, 0, 0, 0)
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSGID, 0, 0, 0)
	}()
	d := net.Dialer{Timeout: 2 * time.Second}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.Dial("tcp", to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	return string(b), err
}

// conn is a connection, and who should get it.
type conn struct {
	fromPeer bool
	uid, gid uintptr
	from, to string
	want     string
}

// conns are the cases of a pod with all that Istio's annotations can ask for of
// inbound and outbound together.
func conns() map[string]conn {
	const app, proxy = 1000, 1337
	return map[string]conn{
		"application to a far address":                     {uid: app, gid: app, to: "192.0.2.1:80", want: "outbound"},
		"application to a far IPv6 address":                {uid: app, gid: app, to: "[2001:db8::1]:80", want: "outbound"},
		"application as root to a far address":             {to: "192.0.2.1:80", want: "outbound"},
		"application to itself by 127.0.0.1":               {uid: app, gid: app, to: "127.0.0.1:8080", want: "app"},
		"application to itself by ::1":                     {uid: app, gid: app, to: "[::1]:8080", want: "app"},
		"application to itself by its own address":         {uid: app, gid: app, to: "10.0.0.2:8080", want: "app"},
		"application to itself by its own IPv6 address":    {uid: app, gid: app, to: "[fd00::2]:8080", want: "app"},
		"application to an excluded range":                 {uid: app, gid: app, to: "10.0.0.1:81", want: "peer81"},
		"application to an excluded range on another port": {uid: app, gid: app, to: "10.0.0.1:80", want: "outbound"},
		"proxy to a peer":                                  {uid: proxy, gid: proxy, to: "10.0.0.1:80", want: "peer"},
		"proxy to a peer over IPv6":                        {uid: proxy, gid: proxy, to: "[fd00::1]:80", want: "peer"},
		"user of the proxy to a peer":                      {uid: proxy, gid: app, to: "10.0.0.1:80", want: "peer"},
		"group of the proxy to a peer":                     {uid: app, gid: proxy, to: "10.0.0.1:80", want: "peer"},
		"group of the proxy to its own pod":                {uid: app, gid: proxy, to: "10.0.0.2:8080", want: "app"},
		"proxy to its own pod, as a Service resolves":      {uid: proxy, gid: proxy, to: "10.0.0.2:8080", want: "inbound"},
		"proxy to its own pod over IPv6":                   {uid: proxy, gid: proxy, to: "[fd00::2]:8080", want: "inbound"},
		"proxy hands over from 127.0.0.6":                  {uid: proxy, gid: proxy, from: "127.0.0.6", to: "10.0.0.2:8080", want: "app"},
		"proxy hands over from ::6":                        {uid: proxy, gid: proxy, from: "::6", to: "[fd00::2]:8080", want: "app"},
		"proxy to 127.0.0.1":                               {uid: proxy, gid: proxy, to: "127.0.0.1:8080", want: "app"},
		"peer to the application":                          {fromPeer: true, to: "10.0.0.2:8080", want: "inbound"},
		"peer to the application over IPv6":                {fromPeer: true, to: "[fd00::2]:8080", want: "inbound"},
		"peer to a port that nobody listens on":            {fromPeer: true, to: "10.0.0.2:9999", want: "inbound"},
		"peer to the agent's status port":                  {fromPeer: true, to: "10.0.0.2:15020", want: "status"},
		"peer to an excluded port":                         {fromPeer: true, to: "10.0.0.2:2222", want: "excluded"},
	}
}

func connsPlan() Plan {
	c := Default()
	c.ExcludeInbound = []uint16{2222}
	c.Exclude = []Destination{{Range: netip.MustParsePrefix("10.0.0.0/24"), Ports: []uint16{81}}}
	return Rules(c)
}

// reach makes the connection and returns who got it.
func (p pair) reach(c conn) (string, error) {
	ns := p.pod
	if c.fromPeer {
		ns = p.peer
	}
	return ask(ns, c.uid, c.gid, c.from, c.to)
}

// TestApply runs alone: Apply is not for concurrent use.
func TestApply(t *testing.T) {
	inThread(t, func() error {
		p, err := newPair()
		if err != nil {
			return err
		}
		for range 2 { // the second call replaces the first
			if err := Apply(connsPlan()); err != nil {
				return err
			}
		}
		if err := AddSource(); err != nil {
			return err
		}
		if err := listen(p); err != nil {
			return err
		}
		for name, c := range conns() {
			if got, err := p.reach(c); err != nil || got != c.want {
				t.Errorf("%s: reached %q (%v), want %q", name, got, err, c.want)
			}
		}
		return nil
	})
}

func listen(p pair) error {
	at := []struct {
		ns         netns.NsHandle
		name, addr string
	}{
		{p.pod, "outbound", ":15001"}, {p.pod, "inbound", ":15006"}, {p.pod, "app", ":8080"},
		{p.pod, "status", ":15020"}, {p.pod, "excluded", ":2222"},
		{p.peer, "peer", ":80"}, {p.peer, "peer81", ":81"},
	}
	for _, l := range at {
		if err := netns.Set(l.ns); err != nil {
			return err
		}
		if err := answer(l.name, l.addr); err != nil {
			return fmt.Errorf("listen for %s: %w", l.name, err)
		}
	}
	return nil
}

// TestTextIsWhatIsApplied compares what the kernel holds after Apply with what it
// holds after nft has read the printed plan.
func TestTextIsWhatIsApplied(t *testing.T) {
	nft, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("skipped: no nft here")
	}
	c := Default()
	c.ExcludeInbound = []uint16{22}
	c.ExcludeOutbound = []uint16{3306}
	c.Outbound = Ports{List: []uint16{443, 444}}
	c.Include = Ranges{List: prefixes("10.96.0.0/12", "fd00:96::/108")}
	c.ExcludeRanges = prefixes("10.97.0.0/16", "192.0.2.1/32", "fd00:97::/64")
	c.ExcludeInterfaces = []string{"net1"}
	plan := Rules(c)
	inThread(t, func() error {
		list := func() (string, error) {
			b, err := exec.Command(nft, "list", "table", "inet", Table).CombinedOutput()
			return regexp.MustCompile(`packets \d+ bytes \d+`).ReplaceAllString(string(b), ""), err
		}
		if _, err := netns.New(); err != nil {
			return err
		}
		if err := Apply(plan); err != nil {
			return err
		}
		applied, err := list()
		if err != nil {
			return fmt.Errorf("list what was applied: %w: %s", err, applied)
		}
		script := t.TempDir() + "/rules.nft"
		if err := os.WriteFile(script, []byte(plan.String()), 0o600); err != nil {
			return err
		}
		if b, err := exec.Command(nft, "-f", script).CombinedOutput(); err != nil {
			return fmt.Errorf("nft -f: %w: %s", err, b)
		}
		read, err := list()
		if err != nil {
			return fmt.Errorf("list what was read: %w: %s", err, read)
		}
		if d := cmp.Diff(read, applied); d != "" {
			t.Errorf("(-text +applied):\n%s", d)
		}
		return nil
	})
}
