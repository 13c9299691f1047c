// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package wiring

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// balanced marks the routes that Balance made.
const balanced netlink.RouteProtocol = 188

// Balance makes routes to addresses by all of their next hops, and by none to those
// that have none, in the network namespace of the calling process. Earlier ones to
// other addresses go.
func Balance(routes map[netip.Addr][]netip.Addr) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	b, err := h.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("find bridge: %w", err)
	}
	for dst, hops := range routes {
		if err := h.RouteReplace(spread(b.Attrs().Index, dst, hops)); err != nil {
			return fmt.Errorf("add route to %s by %v: %w", dst, hops, err)
		}
	}
	old, err := h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: balanced}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, r := range old {
		dst, ok := netip.AddrFromSlice(r.Dst.IP.To4())
		if _, wanted := routes[dst]; ok && wanted {
			continue
		}
		if err := h.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route to %s: %w", dst, err)
		}
	}
	return nil
}

func spread(link int, dst netip.Addr, hops []netip.Addr) *netlink.Route {
	r := &netlink.Route{
		Dst:      &net.IPNet{IP: dst.AsSlice(), Mask: net.CIDRMask(dst.BitLen(), dst.BitLen())},
		Protocol: balanced,
	}
	if len(hops) == 0 {
		r.Type = unix.RTN_UNREACHABLE
	}
	for _, ip := range hops {
		r.MultiPath = append(r.MultiPath, &netlink.NexthopInfo{LinkIndex: link, Gw: ip.AsSlice()})
	}
	return r
}

// balance has the caller's network namespace spread connections, not hosts, over
// next hops, and leave out those that do not answer.
func balance() error {
	for _, f := range []string{"fib_multipath_hash_policy", "fib_multipath_use_neigh"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+f, []byte("1"), 0); err != nil {
			return fmt.Errorf("have routes balance: %w", err)
		}
	}
	return nil
}
