// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package wiring

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
)

// End is one of two clusters that are joined: it and the path of its outside's
// network namespace.
type End struct {
	Cluster spec.Cluster
	Netns   string
}

// Join links the routers of two clusters, so that each reaches the other's node,
// pods, Services and load balancers. The link goes with either cluster.
func Join(a, b End) error {
	if a.Cluster.Index == b.Cluster.Index {
		return errors.New("clusters with one index have the same addresses and cannot be joined")
	}
	far, err := os.Open(b.Netns)
	if err != nil {
		return fmt.Errorf("open the outside of %s: %w", b.Cluster.Name, err)
	}
	defer far.Close()
	err = Within(a.Netns, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open netlink: %w", err)
		}
		defer h.Close()
		return joinLink(h, a.Cluster, b.Cluster, int(far.Fd()))
	})
	if err != nil {
		return err
	}
	for _, e := range [][2]End{{a, b}, {b, a}} {
		if err := Within(e[0].Netns, func() error { return joinRoutes(e[0].Cluster, e[1].Cluster) }); err != nil {
			return err
		}
	}
	return nil
}

// linkTo is the name of the link to a cluster.
func linkTo(c spec.Cluster) string { return fmt.Sprintf("to-%d", c.Index) }

func joinLink(h *netlink.Handle, a, b spec.Cluster, far int) error {
	if _, err := h.LinkByName(linkTo(b)); err == nil {
		return fmt.Errorf("clusters %s and %s are joined already", a.Name, b.Name)
	}
	err := h.LinkAdd(&netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: linkTo(b)},
		PeerName:      linkTo(a),
		PeerNamespace: netlink.NsFd(far),
	})
	if err != nil {
		return fmt.Errorf("add link from %s to %s: %w", a.Name, b.Name, err)
	}
	return nil
}

// joinRoutes sends everything of the other cluster to its router, in the families
// that both have. The link repeats the router's address: without one, neighbours
// would be asked for from any other of the router's addresses, of which the far
// router has the same.
func joinRoutes(own, other spec.Cluster) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	near, far := own.Nets(), other.Nets()
	families := min(len(near), len(far))
	for _, n := range near[:families] {
		if err := address(h, linkTo(other), host(n.Router)); err != nil {
			return err
		}
	}
	if err := up(h, linkTo(other)); err != nil {
		return err
	}
	l, err := h.LinkByName(linkTo(other))
	if err != nil {
		return fmt.Errorf("find link %s: %w", linkTo(other), err)
	}
	for _, n := range far[:families] {
		for _, dst := range append(n.Beyond(), n.Pods, fmt.Sprintf("%s/%d", n.Router, n.Bits)) {
			_, net, err := net.ParseCIDR(dst)
			if err != nil {
				return fmt.Errorf("parse route %s: %w", dst, err)
			}
			r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: net, Gw: gateway(n), Flags: int(netlink.FLAG_ONLINK)}
			if err := h.RouteReplace(r); err != nil {
				return fmt.Errorf("add route %s: %w", dst, err)
			}
		}
	}
	return nil
}

func gateway(n spec.Net) net.IP { return net.ParseIP(n.Router) }
