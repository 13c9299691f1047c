// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// gateway is the router's address on every link, and where DNS is; gateway6 is its
// address for IPv6.
const (
	gateway  = "169.254.1.1"
	gateway6 = "fe80::1"
)

// silentAddress is where packets vanish.
var silentAddress = netip.AddrFrom4([4]byte{198, 51, 100, 1})

// router joins the spaces of a lab: a veth to each, a route for each address.
type router struct {
	space *space
	links int
	// networks that pods have joined.
	networks []string
}

func newRouter() (*router, error) {
	s, err := newSpace()
	if err != nil {
		return nil, err
	}
	r := &router{space: s}
	err = s.do(func() error {
		for _, file := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			if err := os.WriteFile("/proc/sys/net/"+file, []byte("1"), 0o600); err != nil {
				return err
			}
		}
		if err := linkUp("lo"); err != nil {
			return err
		}
		_, nowhere, err := net.ParseCIDR(whole(silentAddress))
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Dst: nowhere, Type: unix.RTN_BLACKHOLE})
	})
	if err != nil {
		s.close()
		return nil, fmt.Errorf("make router: %w", err)
	}
	return r, nil
}

// attach gives the space an interface eth0 with these addresses, reachable from all
// others of the lab, and returns the name of its other end.
func (r *router) attach(s *space, ips ...netip.Addr) (string, error) {
	r.links++
	name := fmt.Sprintf("v%d", r.links)
	err := r.space.do(func() error {
		v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(s.fd)}
		if err := netlink.LinkAdd(v); err != nil {
			return fmt.Errorf("add veth: %w", err)
		}
		if err := linkUp(name, gateway+"/32", gateway6+"/64"); err != nil {
			return err
		}
		for _, ip := range ips {
			if err := addRoute(name, whole(ip), ""); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = s.do(func() error { return settle(ips) })
	}
	if err != nil {
		return "", fmt.Errorf("attach %s: %w", ips, err)
	}
	return name, nil
}

// settle sets up the links of a space that has these addresses.
func settle(ips []netip.Addr) error {
	if err := linkUp("lo"); err != nil {
		return err
	}
	for _, ip := range ips {
		if err := linkUp("eth0", whole(ip)); err != nil {
			return err
		}
		via, all := gateway, "0.0.0.0/0"
		if ip.Is6() {
			via, all = gateway6, "::/0"
		} else if err := addRoute("eth0", gateway+"/32", ""); err != nil {
			return err
		}
		if err := addRoute("eth0", all, via); err != nil {
			return err
		}
	}
	return nil
}

// whole is the prefix that is just this address.
func whole(ip netip.Addr) string { return netip.PrefixFrom(ip, ip.BitLen()).String() }

// sixth is the IPv6 address in this /64 that ends with an IPv4 address.
func sixth(prefix string, ip netip.Addr) netip.Addr {
	out, four := netip.MustParseAddr(prefix).As16(), ip.As4()
	copy(out[12:], four[:])
	return netip.AddrFrom16(out)
}

func linkUp(name string, addrs ...string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	for _, s := range addrs {
		a, err := netlink.ParseAddr(s)
		if err != nil {
			return err
		}
		if a.IP.To4() == nil {
			a.Flags = unix.IFA_F_NODAD // usable at once: nobody else is on the link
		}
		if err := netlink.AddrAdd(l, a); err != nil {
			return fmt.Errorf("add %s to %s: %w", s, name, err)
		}
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

func addRoute(link, to, via string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return fmt.Errorf("find %s: %w", link, err)
	}
	_, dst, err := net.ParseCIDR(to)
	if err != nil {
		return err
	}
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: dst}
	if via == "" {
		r.Scope = unix.RT_SCOPE_LINK
	} else {
		r.Gw = net.ParseIP(via)
	}
	if err := netlink.RouteAdd(r); err != nil {
		return fmt.Errorf("route %s by %s %s: %w", to, link, via, err)
	}
	return nil
}
