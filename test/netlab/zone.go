// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Zone is a place where pods are, at some distance from the others. What leaves it
// passes through this process, which delays or drops it; the kernel's netem is not
// everywhere.
type Zone struct {
	region, name string
	delay        time.Duration
	loss         float64
	lab          *Lab
	tun          string
	table        int
	dropped      atomic.Int64
}

// ZoneOption changes a Zone.
type ZoneOption func(*Zone)

// WithDelay delays whatever leaves the zone: a round trip to another zone takes
// the delays of both.
func WithDelay(d time.Duration) ZoneOption { return func(z *Zone) { z.delay = d } }

// WithLoss drops this share of the packets that leave the zone.
func WithLoss(share float64) ZoneOption { return func(z *Zone) { z.loss = share } }

// Zone makes a zone, named as region/zone, for PodSpec.Zone.
func (l *Lab) Zone(name string, options ...ZoneOption) *Zone {
	l.t.Helper()
	region, zone, ok := strings.Cut(name, "/")
	if !ok {
		l.t.Fatalf("netlab: zone %q is not region/zone", name)
	}
	n := len(l.zones) + 1
	z := &Zone{region: region, name: zone, lab: l, tun: fmt.Sprintf("zone%d", n), table: 100 + n}
	for _, o := range options {
		o(z)
	}
	if l.zones == nil {
		l.zones = map[string]*Zone{}
	}
	l.zones[name] = z
	l.must(l.objects.put("node-"+z.node(), &corev1.Node{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: z.node(), Labels: map[string]string{
			corev1.LabelTopologyRegion: region, corev1.LabelTopologyZone: zone,
		}},
	}))
	l.must(z.open())
	return z
}

// Dropped is how many packets have been lost.
func (z *Zone) Dropped() int64 { return z.dropped.Load() }

// node is the name of the zone's only node.
func (z *Zone) node() string {
	if z == nil {
		return "lab"
	}
	return "node-" + z.region + "-" + z.name
}

// open makes the device that packets leave the zone by.
func (z *Zone) open() error {
	t := &netlink.Tuntap{
		LinkAttrs: netlink.LinkAttrs{Name: z.tun}, Mode: netlink.TUNTAP_MODE_TUN,
		Flags: netlink.TUNTAP_NO_PI, Queues: 1, NonPersist: true,
	}
	err := z.lab.router.space.do(func() error {
		if err := netlink.LinkAdd(t); err != nil {
			return fmt.Errorf("add tun: %w", err)
		}
		if err := linkUp(z.tun); err != nil {
			return err
		}
		// Packets come back in by another way than their sources are reached.
		for _, dev := range []string{"all", z.tun} {
			if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+dev+"/rp_filter", []byte("0"), 0o600); err != nil {
				return err
			}
		}
		return addRouteIn(z.table, z.tun, "0.0.0.0/0")
	})
	if err != nil {
		return fmt.Errorf("zone %s: %w", z.name, err)
	}
	f := t.Fds[0]
	done := make(chan struct{})
	go func() {
		defer close(done)
		z.relay(f)
	}()
	z.lab.later(func() {
		_ = f.Close()
		<-done
	})
	return nil
}

// enter puts the pod behind this link into the zone.
func (z *Zone) enter(link string, ip netip.Addr) error {
	return z.lab.router.space.do(func() error {
		if err := addRouteIn(z.table, link, ip.String()+"/32"); err != nil {
			return err
		}
		r := netlink.NewRule()
		r.IifName, r.Table, r.Priority = link, z.table, z.table
		return netlink.RuleAdd(r)
	})
}

func addRouteIn(table int, link, to string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return fmt.Errorf("find %s: %w", link, err)
	}
	_, dst, err := net.ParseCIDR(to)
	if err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: dst, Table: table, Scope: netlink.SCOPE_LINK})
}

type packet struct {
	at   time.Time
	data []byte
}

// relay gives every packet back to the kernel when its time has come, until the
// device is closed.
func (z *Zone) relay(f *os.File) {
	late := make(chan packet, 4096)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for p := range late {
			if wait := time.Until(p.at); wait > 0 {
				time.Sleep(wait) // the delay itself
			}
			_, _ = f.Write(p.data)
		}
	}()
	chance := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same packets are lost in every run
	for buf := make([]byte, 64<<10); ; {
		n, err := f.Read(buf)
		if err != nil {
			break
		}
		if chance.Float64() < z.loss {
			z.dropped.Add(1)
			continue
		}
		select {
		case late <- packet{time.Now().Add(z.delay), append([]byte(nil), buf[:n]...)}:
		default:
			z.dropped.Add(1) // as a full queue does
		}
	}
	close(late)
	<-done
}
