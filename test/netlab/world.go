// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/isthmus-mesh/isthmus/internal/agent/intercept"
	"github.com/isthmus-mesh/isthmus/test/simulation"
)

// world is the lab as the evaluator sees it: each proxy with the configuration
// that it has at this moment, the redirects of each pod, and what applications are
// known to answer.
type world struct {
	lab     *Lab
	proxies map[*Pod]*simulation.Proxy
}

func (l *Lab) world() *world { return &world{lab: l, proxies: map[*Pod]*simulation.Proxy{}} }

// still is the world with the configuration of every proxy at this moment.
func (l *Lab) still() (*world, error) {
	w := l.world()
	for _, p := range l.pods {
		if p.agent == nil {
			continue
		}
		if _, err := w.proxy(p); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// Resolve asks the lab's DNS.
func (w *world) Resolve(host string) []netip.Addr {
	ips, _ := w.lab.dns.find(host)
	return ips
}

// Meet follows the packet: the redirect of the sender's machine, then that of the
// machine it comes to, then whoever listens there.
func (w *world) Meet(from simulation.Sender, to netip.AddrPort) (simulation.Place, error) {
	here := w.machine(func(p *Pod) bool { return p.Name == from.Machine })
	there := w.machine(func(p *Pod) bool { return p.has(to.Addr()) })
	if to.Addr().IsLoopback() {
		there = here
	}
	if here != nil && here.Proxy == Sidecar && here.agent != nil {
		port, err := here.redirect(intercept.Output, from, to, there == here)
		if err != nil || port != 0 {
			return w.redirected(here, to, port, err)
		}
	}
	switch {
	case there == nil || here.apartFrom(there):
		return simulation.Place{}, nil
	case there.Proxy == Sidecar && there.agent != nil && there != here:
		port, err := there.redirect(intercept.Prerouting, from, to, false)
		if err != nil || port != 0 {
			return w.redirected(there, to, port, err)
		}
	}
	if there.agent != nil {
		p, err := w.proxy(there)
		if err != nil || p.Config.Binds(to) {
			return simulation.Place{Proxy: p}, err
		}
	}
	return simulation.Place{App: application{pod: there, port: int(to.Port())}}, nil
}

func (w *world) machine(is func(*Pod) bool) *Pod {
	all := slices.Concat(w.lab.pods, w.lab.hosts)
	if i := slices.IndexFunc(all, is); i >= 0 {
		return all[i]
	}
	return nil
}

func (w *world) redirected(p *Pod, to netip.AddrPort, port uint16, err error) (simulation.Place, error) {
	if err != nil {
		return simulation.Place{}, err
	}
	at := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if to.Addr().Is6() {
		at = netip.IPv6Loopback()
	}
	proxy, err := w.proxy(p)
	return simulation.Place{Proxy: proxy, Accepted: netip.AddrPortFrom(at, port)}, err
}

// proxy asks the pod's Envoy for its configuration, once.
func (w *world) proxy(p *Pod) (*simulation.Proxy, error) {
	if known, ok := w.proxies[p]; ok {
		return known, nil
	}
	b, err := p.Admin("/config_dump?include_eds")
	if err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", p.Name, err)
	}
	c, err := p.dumps.read(b)
	if err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", p.Name, err)
	}
	out := &simulation.Proxy{Name: p.Name, Config: c, Address: p.IP, Identity: []string{p.identity()}}
	w.proxies[p] = out
	return out, nil
}

// dumps are those of one proxy, read one after another.
type dumps struct {
	sync.Mutex
	reader simulation.Reader
}

func (d *dumps) read(text []byte) (*simulation.Config, error) {
	d.Lock()
	defer d.Unlock()
	return d.reader.Read(text)
}

// inMotion tells whether a proxy has other configuration by now than when it was
// asked.
func (w *world) inMotion() error {
	now, err := w.lab.still()
	if err != nil {
		return err
	}
	for p, before := range w.proxies {
		if after := now.proxies[p]; after == nil || !after.Config.Equal(before.Config) {
			return fmt.Errorf("configuration of %s is in motion", p.Name)
		}
	}
	return nil
}

func (p *Pod) identity() string {
	return fmt.Sprintf("spiffe://%s/ns/%s/sa/%s", clusterDomain, p.Namespace, p.Account)
}

// redirect goes through the rules that the agent has installed, and returns the
// port to which the connection goes instead, 0 for none.
func (p *Pod) redirect(hook intercept.Hook, from simulation.Sender, to netip.AddrPort, loopback bool) (uint16, error) {
	conf, err := p.interception()
	if err != nil {
		return 0, err
	}
	owner := uint32(uidApp)
	if from.Proxy != nil {
		owner = uidProxy
	}
	link := "eth0"
	if loopback {
		link = "lo"
	}
	for _, c := range intercept.Rules(conf).Chains {
		if c.Hook != hook {
			continue
		}
		for _, r := range c.Rules {
			if covers(r, from.Source, to, owner, link) {
				return r.Redirect, nil
			}
		}
	}
	return 0, nil
}

func covers(r intercept.Rule, source netip.Addr, to netip.AddrPort, owner uint32, link string) bool {
	for _, m := range r.Match {
		ok := true
		switch {
		case len(m.Ports) > 0:
			ok = slices.Contains(m.Ports, to.Port())
		case m.Source.IsValid():
			ok = source.IsValid() && m.Source.Contains(source)
		case m.Dest.IsValid():
			if m.Dest.Addr().Is4() != to.Addr().Is4() {
				return false // negated or not, a rule of one family is not for the other
			}
			ok = m.Dest.Contains(to.Addr())
		case m.OutLink != "" || m.InLink != "":
			ok = m.OutLink+m.InLink == link
		case m.OwnerUID != nil:
			ok = *m.OwnerUID == owner
		case m.OwnerGID != nil:
			ok = *m.OwnerGID == owner
		}
		if ok == m.Not {
			return false
		}
	}
	return true
}

// interception reads the flags that the pod's redirect was given.
func (p *Pod) interception() (intercept.Config, error) {
	c := intercept.Default()
	for i := 0; i+1 < len(p.Intercept); i += 2 {
		flag, value := p.Intercept[i], p.Intercept[i+1]
		if flag != "--exclude-outbound" {
			return c, fmt.Errorf("what %s does is not known to the evaluator's world", flag)
		}
		d, err := intercept.ParseDestination(value)
		if err != nil {
			return c, err
		}
		c.Exclude = append(c.Exclude, d)
	}
	return c, nil
}
