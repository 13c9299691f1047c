// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package wiring lays a cluster's network: a namespace that is the router and all
// hosts beyond it, one for each node, and the links and routes between them.
//
//	pods ─ptp─ node1 10.88.I.1 ─node0──┐
//	                                   ├─ bridge 10.88.I.254 router, 203.0.113.x
//	pods ─ptp─ node2 10.88.I.2 ─node0──┘
//
// Nothing of it touches the host's network. The namespaces last as long as the
// files that hold them and the processes in them.
package wiring

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
)

const (
	nodeLink = "node0"   // a node's only link; the router's end of it is named like the node
	bridge   = "bridge0" // the router's end of all of them
)

// Outside makes the network namespace of the router. hosts are addresses of those
// beyond it.
func Outside(c spec.Cluster, hosts []string) (*os.File, error) {
	ns, err := newNamespace()
	if err != nil {
		return nil, err
	}
	if err := within(ns, func(h *netlink.Handle) error { return layOutside(h, c, hosts) }); err != nil {
		ns.Close()
		return nil, fmt.Errorf("lay the outside: %w", err)
	}
	return ns, nil
}

func layOutside(h *netlink.Handle, c spec.Cluster, hosts []string) error {
	if err := errors.Join(forward(c), balance()); err != nil {
		return err
	}
	for _, ip := range hosts {
		if err := address(h, "lo", host(ip)); err != nil {
			return err
		}
	}
	if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge, HardwareAddr: hardware(c, 0xfe)}}); err != nil {
		return fmt.Errorf("add bridge: %w", err)
	}
	for _, n := range c.Nets() {
		if err := address(h, bridge, fmt.Sprintf("%s/%d", n.Router, n.Bits)); err != nil {
			return err
		}
	}
	for _, l := range []string{"lo", bridge} {
		if err := up(h, l); err != nil {
			return err
		}
	}
	return nil
}

// Connect makes the network namespace of a node and plugs it into the router's,
// in place of one of that name that is gone.
func Connect(n spec.Node, outside *os.File) (*os.File, error) {
	// The kernel takes its time to remove the links of a node that has ended.
	if err := within(outside, func(h *netlink.Handle) error { return unplug(h, n.Host()) }); err != nil {
		return nil, fmt.Errorf("disconnect %s: %w", n.Host(), err)
	}
	ns, err := newNamespace()
	if err != nil {
		return nil, err
	}
	err = within(ns, func(h *netlink.Handle) error { return layNode(h, n, int(outside.Fd())) })
	if err == nil {
		err = within(outside, func(h *netlink.Handle) error { return plug(h, n) })
	}
	if err == nil { // only now: a route needs its link up, and a link comes up with its peer
		err = within(ns, func(h *netlink.Handle) error { return routes(h, n) })
	}
	if err != nil {
		ns.Close()
		return nil, fmt.Errorf("connect %s: %w", n.Host(), err)
	}
	return ns, nil
}

func unplug(h *netlink.Handle, link string) error {
	all, err := h.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, l := range all {
		if l.Attrs().Name == link {
			return h.LinkDel(l) //nolint:wrapcheck // the caller says what of
		}
	}
	return nil
}

func layNode(h *netlink.Handle, n spec.Node, outside int) error {
	if err := forward(n.Cluster); err != nil {
		return err
	}
	if err := up(h, "lo"); err != nil {
		return err
	}
	err := h.LinkAdd(&netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: nodeLink, HardwareAddr: hardware(n.Cluster, n.Number)},
		PeerName:      n.Host(),
		PeerNamespace: netlink.NsFd(outside),
	})
	if err != nil {
		return fmt.Errorf("add link: %w", err)
	}
	for _, net := range n.Nets() {
		if err := address(h, nodeLink, fmt.Sprintf("%s/%d", net.IP, net.Bits)); err != nil {
			return err
		}
	}
	return up(h, nodeLink)
}

// hardware is the address of a link whose neighbours must not notice that it was
// made anew: a node's when the node starts again, the bridge's when it gets a port.
func hardware(c spec.Cluster, host int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0x88, 0, 0, byte(c.Index), byte(host)} //nolint:gosec // small numbers
}

// plug puts the node's link into the bridge and its networks behind it. The first
// node answers for Services' own addresses, to those who come from outside.
func plug(h *netlink.Handle, n spec.Node) error {
	port, err := h.LinkByName(n.Host())
	if err != nil {
		return fmt.Errorf("find link %s: %w", n.Host(), err)
	}
	master, err := h.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("find bridge: %w", err)
	}
	if err := h.LinkSetMaster(port, master); err != nil {
		return fmt.Errorf("add port to bridge: %w", err)
	}
	if err := h.LinkSetUp(port); err != nil {
		return fmt.Errorf("set link %s up: %w", n.Host(), err)
	}
	for _, net := range n.Nets() {
		behind := []string{net.Pods}
		if n.ControlPlane() {
			behind = append(behind, net.Services)
		}
		for _, dst := range behind {
			if err := route(h, bridge, dst, net.IP); err != nil {
				return err
			}
		}
	}
	return nil
}

// routes lead out of a node: to the other nodes' pods, and by the router to all else.
func routes(h *netlink.Handle, n spec.Node) error {
	for _, o := range n.Machines() {
		if o.Number == n.Number {
			continue
		}
		for _, net := range o.Nets() {
			if err := route(h, nodeLink, net.Pods, net.IP); err != nil {
				return err
			}
		}
	}
	for _, net := range n.Nets() {
		if err := route(h, nodeLink, net.All, net.Router); err != nil {
			return err
		}
	}
	return nil
}

// Within calls f on a thread that is in the network namespace at path. Processes
// and sockets that f starts and opens stay there.
func Within(path string, f func() error) error {
	ns, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer ns.Close()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("enter network namespace %s: %w", path, err)
			return
		}
		result <- f()
	}()
	return <-result
}

func within(ns *os.File, f func(*netlink.Handle) error) error {
	return Within(fmt.Sprintf("/proc/self/fd/%d", ns.Fd()), func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open netlink: %w", err)
		}
		defer h.Close()
		return f(h)
	})
}

// newNamespace makes a network namespace, which the file holds.
func newNamespace() (*os.File, error) {
	type result struct {
		ns  *os.File
		err error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked, as above
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- result{err: fmt.Errorf("make network namespace (are you root?): %w", err)}
			return
		}
		ns, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			err = fmt.Errorf("hold network namespace: %w", err)
		}
		made <- result{ns, err}
	}()
	r := <-made
	return r.ns, r.err
}

// forward lets the caller's network namespace pass packets on. Without a second
// family, of IPv6 there are link-local addresses only.
func forward(c spec.Cluster) error {
	settings := map[string]string{"ipv4/ip_forward": "1"}
	if c.IPFamily == spec.Dual {
		settings["ipv6/conf/all/forwarding"] = "1"
		// An address is used at once, not after a second's look for others who have it.
		settings["ipv6/conf/all/accept_dad"], settings["ipv6/conf/default/accept_dad"] = "0", "0"
	}
	for name, value := range settings {
		// /proc/sys/net is that of the thread that opens it.
		if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

// host is the address as a network of its own.
func host(ip string) string {
	if strings.Contains(ip, ":") {
		return ip + "/128"
	}
	return ip + "/32"
}

func up(h *netlink.Handle, link string) error {
	l, err := h.LinkByName(link)
	if err != nil {
		return fmt.Errorf("find link %s: %w", link, err)
	}
	if err := h.LinkSetUp(l); err != nil {
		return fmt.Errorf("set link %s up: %w", link, err)
	}
	return nil
}

func address(h *netlink.Handle, link, cidr string) error {
	l, err := h.LinkByName(link)
	if err != nil {
		return fmt.Errorf("find link %s: %w", link, err)
	}
	a, err := netlink.ParseAddr(cidr)
	if err != nil {
		return fmt.Errorf("parse address %s: %w", cidr, err)
	}
	if err := h.AddrAdd(l, a); err != nil {
		return fmt.Errorf("add address %s to %s: %w", cidr, link, err)
	}
	return nil
}

func route(h *netlink.Handle, link, dst, via string) error {
	l, err := h.LinkByName(link)
	if err != nil {
		return fmt.Errorf("find link %s: %w", link, err)
	}
	_, n, err := net.ParseCIDR(dst)
	if err != nil {
		return fmt.Errorf("parse route %s: %w", dst, err)
	}
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: n, Gw: net.ParseIP(via)}
	if err := h.RouteReplace(r); err != nil {
		return fmt.Errorf("add route %s via %s: %w", dst, via, err)
	}
	return nil
}
