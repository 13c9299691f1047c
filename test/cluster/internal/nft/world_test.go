// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/policy"
)

// patience is how long a packet that has to arrive may take on a slow machine;
// briefly is how long one is waited for that has to be dropped.
const (
	patience = 30 * time.Second
	briefly  = 300 * time.Millisecond
)

// hosts are the addresses of every world's hosts, of both families.
var hosts = map[string][2]string{
	"a":       {"10.9.0.1", "fd00:9::1"},
	"b":       {"10.9.0.2", "fd00:9::2"},
	"outside": {"203.0.113.10", "2001:db8::10"},
	"node":    {"10.9.0.254", "fd00:9::fe"},
	"service": {"10.10.0.1", "fd00:10::1"}, // its port 80 is b's port 81
}

func ips(host string) []netip.Addr {
	return []netip.Addr{netip.MustParseAddr(hosts[host][0]), netip.MustParseAddr(hosts[host][1])}
}

// world is a node and three hosts, each linked to it as the CNI plugin ptp links
// pods, in network namespaces of their own. All answer on the same ports.
type world struct {
	t      *testing.T
	spaces map[string]*os.File
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: network namespaces need root")
	}
	w := &world{t: t, spaces: map[string]*os.File{}}
	for _, name := range []string{"node", "a", "b", "outside"} {
		w.add(name)
	}
	w.write("node", "/proc/sys/net/ipv4/ip_forward", "1")
	w.write("node", "/proc/sys/net/ipv6/conf/all/forwarding", "1")
	for _, name := range []string{"a", "b", "outside"} {
		w.link(name)
	}
	w.run("node", "nft -f -", `
table ip kube { chain c { type nat hook prerouting priority dstnat; ip daddr 10.10.0.1 tcp dport 80 dnat to 10.9.0.2:81; }; }
table ip6 kube { chain c { type nat hook prerouting priority dstnat; ip6 daddr fd00:10::1 tcp dport 80 dnat to [fd00:9::2]:81; }; }`)
	for name := range w.spaces {
		w.serve(name)
	}
	return w
}

func (w *world) add(name string) {
	w.t.Helper()
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		ns, err := os.Open("/proc/thread-self/ns/net")
		w.spaces[name] = ns
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { w.spaces[name].Close() })
	w.run(name, "ip -batch -", "link set lo up")
	for _, of := range []string{"all", "default"} { // addresses are usable at once
		w.write(name, "/proc/sys/net/ipv6/conf/"+of+"/accept_dad", "0")
	}
}

func (w *world) link(name string) {
	w.t.Helper()
	node, own := hosts["node"], hosts[name]
	w.run("node", "ip -batch -", fmt.Sprintf(`
link add name %[1]s type veth peer name eth0 netns /proc/%[2]d/fd/%[3]d
addr add %[4]s/32 dev %[1]s
addr add %[5]s/128 dev %[1]s nodad
link set dev %[1]s up`, name, os.Getpid(), w.spaces[name].Fd(), node[0], node[1]))
	w.run(name, "ip -batch -", fmt.Sprintf(`
addr add %s/32 dev eth0
addr add %s/128 dev eth0 nodad
link set eth0 up
route add %[3]s dev eth0
route add default via %[3]s
route add %[4]s dev eth0
route add default via %[4]s`, own[0], own[1], node[0], node[1]))
	w.run("node", "ip -batch -", fmt.Sprintf("route add %[1]s dev %[3]s\nroute add %[2]s dev %[3]s", own[0], own[1], name))
}

// onThread calls f on a thread of its own, which ends with it.
func onThread(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		result <- f()
	}()
	return <-result
}

// within calls f in the host's network namespace.
func (w *world) within(host string, f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(w.spaces[host].Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
}

func (w *world) run(host, command, input string) {
	w.t.Helper()
	args := strings.Fields(command)
	c := exec.Command(args[0], args[1:]...)
	c.Stdin = strings.NewReader(input)
	err := w.within(host, func() error {
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if err != nil {
		w.t.Fatalf("%s on %s: %v\n%s", command, host, err, input)
	}
}

func (w *world) write(host, file, text string) {
	w.t.Helper()
	if err := w.within(host, func() error { return os.WriteFile(file, []byte(text), 0) }); err != nil {
		w.t.Fatal(err)
	}
}

// serve echoes on the ports 80 to 82 of both protocols and families.
func (w *world) serve(host string) {
	w.t.Helper()
	for port := 80; port <= 82; port++ {
		var l net.Listener
		err := w.within(host, func() (err error) {
			l, err = net.Listen("tcp", fmt.Sprintf("[::]:%d", port))
			return err
		})
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { l.Close() })
		go func() {
			for c, err := l.Accept(); err == nil; c, err = l.Accept() {
				go func() {
					defer c.Close()
					_, _ = io.Copy(c, c)
				}()
			}
		}()
		for _, ip := range hosts[host] { // of its own address each, so that answers come from it
			w.echo(host, netip.AddrPortFrom(netip.MustParseAddr(ip), uint16(port)))
		}
	}
}

func (w *world) echo(host string, at netip.AddrPort) {
	w.t.Helper()
	var l *net.UDPConn
	err := w.within(host, func() (err error) {
		l, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close() })
	go func() {
		b := make([]byte, 64)
		for n, from, err := l.ReadFromUDPAddrPort(b); err == nil; n, from, err = l.ReadFromUDPAddrPort(b) {
			_, _ = l.WriteToUDPAddrPort(b[:n], from)
		}
	}()
}

var programming sync.Mutex

func (w *world) program(r policy.Rules, s Settings) {
	w.t.Helper()
	programming.Lock()
	defer programming.Unlock()
	if err := w.within("node", func() error { return Program(r, s) }); err != nil {
		w.t.Fatal(err)
	}
}

// probe is "FROM TO PROTOCOL PORT". TO may end in 4 or 6 to mean one family only.
type probe string

// each calls f for every address that the probe means.
func (p probe) each(f func(from, network, address string)) {
	w := strings.Fields(string(p))
	for i, family := range []string{"4", "6"} {
		host := strings.TrimSuffix(w[1], family)
		if host == w[1] && strings.ContainsAny(w[1], "46") {
			continue
		}
		f(w[0], w[2], net.JoinHostPort(hosts[host][i], w[3]))
	}
}

func (w *world) open(all ...probe) {
	w.t.Helper()
	for _, p := range all {
		p.each(func(from, network, address string) {
			if err := w.ask(from, network, address, patience); err != nil {
				w.t.Errorf("%s from %s to %s: %v", network, from, address, err)
			}
		})
	}
}

// closed wants an answer that refuses if that is how the node denies, else silence.
func (w *world) closed(rejects bool, all ...probe) {
	w.t.Helper()
	for _, p := range all {
		p.each(func(from, network, address string) {
			wait := briefly
			if rejects {
				wait = patience
			}
			err := w.ask(from, network, address, wait)
			var failure net.Error
			if err == nil {
				w.t.Errorf("%s from %s to %s was answered", network, from, address)
			} else if silent := errors.As(err, &failure) && failure.Timeout(); silent == rejects {
				w.t.Errorf("%s from %s to %s: %v, while the node rejects: %t", network, from, address, err, rejects)
			}
		})
	}
}

// ask sends a word and waits for it to come back.
func (w *world) ask(from, network, address string, wait time.Duration) error {
	return w.within(from, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		var d net.Dialer
		c, err := d.DialContext(ctx, network, address)
		if err != nil {
			return err
		}
		defer c.Close()
		return say(c, wait)
	})
}

func say(c net.Conn, wait time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("word")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 4))
	return err
}
