// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package wiring lays the cell's network: the node, a link to a second network
// namespace that is the router and all hosts beyond it, and the routes between.
//
//	pods ─ptp─ node 10.88.I.1 ─node0─────outside0─ 10.88.I.254 router, 203.0.113.x
//
// Nothing of it touches the host's network.
package wiring

import (
	"fmt"
	"net"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
)

const (
	nodeLink    = "node0"
	outsideLink = "outside0"
)

// Lay makes the network of the cell that the caller is in. hosts are addresses of
// the outside.
func Lay(c spec.Cluster, hosts []string) error {
	if err := forward(); err != nil {
		return err
	}
	if err := newNamespace(spec.OutsideNetns); err != nil {
		return err
	}
	out, err := os.Open(spec.OutsideNetns)
	if err != nil {
		return fmt.Errorf("open the outside: %w", err)
	}
	defer out.Close()
	node, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer node.Close()
	if err := layNode(node, c, int(out.Fd())); err != nil {
		return err
	}
	if err := Within(spec.OutsideNetns, func() error { return layOutside(c, hosts) }); err != nil {
		return err
	}
	// Only now: a route needs its link up, and a link comes up with its peer.
	return route(node, nodeLink, "0.0.0.0/0", c.RouterIP())
}

func layNode(h *netlink.Handle, c spec.Cluster, outside int) error {
	if err := up(h, "lo"); err != nil {
		return err
	}
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: nodeLink},
		PeerName:      outsideLink,
		PeerNamespace: netlink.NsFd(outside),
	}
	if err := h.LinkAdd(veth); err != nil {
		return fmt.Errorf("add link %s: %w", nodeLink, err)
	}
	if err := address(h, nodeLink, c.NodeIP()+"/24"); err != nil {
		return err
	}
	return up(h, nodeLink)
}

func layOutside(c spec.Cluster, hosts []string) error {
	if err := forward(); err != nil {
		return err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	for _, ip := range hosts {
		if err := address(h, "lo", ip+"/32"); err != nil {
			return err
		}
	}
	if err := address(h, outsideLink, c.RouterIP()+"/24"); err != nil {
		return err
	}
	for _, l := range []string{"lo", outsideLink} {
		if err := up(h, l); err != nil {
			return err
		}
	}
	for _, dst := range c.Networks() {
		if err := route(h, outsideLink, dst, c.NodeIP()); err != nil {
			return err
		}
	}
	return nil
}

// Within calls f on a thread that is in the network namespace at path. Processes
// and sockets that f starts and opens stay there.
func Within(path string, f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		result <- func() error {
			ns, err := os.Open(path)
			if err != nil {
				return fmt.Errorf("open network namespace: %w", err)
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter network namespace %s: %w", path, err)
			}
			return f()
		}()
	}()
	return <-result
}

// newNamespace makes a network namespace and keeps it by a mount at path, which
// is also how ip(8) finds it.
func newNamespace(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("make file for network namespace: %w", err)
	}
	f.Close()
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("make network namespace: %w", err)
			return
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			result <- fmt.Errorf("keep network namespace at %s: %w", path, err)
			return
		}
		result <- nil
	}()
	return <-result
}

// forward lets the caller's network namespace pass IPv4 on. Of IPv6 there are
// link-local addresses only.
func forward() error {
	// /proc/sys/net is that of the thread that opens it.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return fmt.Errorf("switch on forwarding: %w", err)
	}
	return nil
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
