// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// herdRange are the addresses of a herd.
const herdRange = "10.20.0.0/16"

// Herd starts one application without a proxy that has n addresses, each as good
// as a pod of its own. It belongs to no Service.
func (l *Lab) Herd(name string, n int) []netip.Addr {
	l.t.Helper()
	p := &Pod{lab: l, PodSpec: PodSpec{Name: name, Namespace: "herd"}, IP: netip.AddrFrom4([4]byte{10, 19, 0, 1}), Hosts: []string{name}}
	for i := 1; i <= n; i++ {
		p.more = append(p.more, netip.AddrFrom4([4]byte{10, 20, byte(i >> 8), byte(i)}))
	}
	var err error
	p.space, err = l.space(p.Namespace, nil, p.IP)
	l.must(err)
	l.must(l.router.give(p.space, herdRange, p.IP))
	p.app, err = start(p.space, program{
		name: name, uid: uidApp, dir: l.dir, args: []string{l.program("testapp"), "serve", "--name", name, "--http", ":80"},
	}, l.logs())
	l.must(err)
	l.hosts = append(l.hosts, p)
	return slices.Clone(p.more)
}

// give makes a whole range the space's own, where it has this address already.
func (r *router) give(s *space, cidr string, ip netip.Addr) error {
	_, dst, err := net.ParseCIDR(cidr)
	if err != nil {
		return err
	}
	err = s.do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{
			LinkIndex: lo.Attrs().Index, Dst: dst, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: unix.RT_SCOPE_HOST,
		})
	})
	if err == nil {
		err = r.space.do(func() error { return netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: ip.AsSlice()}) })
	}
	if err != nil {
		return fmt.Errorf("give %s to %s: %w", cidr, ip, err)
	}
	return nil
}

// WantEndpoints waits until the proxy has exactly these addresses in a cluster.
func (p *Pod) WantEndpoints(cluster string, want []netip.Addr) {
	p.lab.t.Helper()
	p.lab.must(await(patience, func() error {
		got, err := p.endpoints(cluster)
		if err == nil && !slices.Equal(got, slices.SortedFunc(slices.Values(want), netip.Addr.Compare)) {
			err = fmt.Errorf("%s has endpoints %v of %s, want %v", p.Name, got, cluster, want)
		}
		return err
	}))
}

func (p *Pod) endpoints(cluster string) ([]netip.Addr, error) {
	b, err := p.Admin("/clusters?format=json")
	if err != nil {
		return nil, err
	}
	var all struct {
		Clusters []struct {
			Name  string `json:"name"`
			Hosts []struct {
				Address struct {
					Socket struct {
						Address netip.Addr `json:"address"`
					} `json:"socket_address"`
				} `json:"address"`
			} `json:"host_statuses"`
		} `json:"cluster_statuses"`
	}
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, fmt.Errorf("read clusters of %s: %w", p.Name, err)
	}
	var out []netip.Addr
	for _, c := range all.Clusters {
		for _, h := range c.Hosts {
			if c.Name == cluster {
				out = append(out, h.Address.Socket.Address)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out, nil
}
