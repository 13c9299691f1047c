// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
)

// dns answers for the names of a lab, and NXDOMAIN for all others. A name that
// begins with "*." stands for every name below it.
type dns struct {
	mu    sync.Mutex
	names map[string][]netip.Addr
	// aliases are names of other names.
	aliases map[string]string
}

// listen serves on port 53 of the space until the returned function is called.
func (d *dns) listen(s *space) (func(), error) {
	var c net.PacketConn
	err := s.do(func() (err error) {
		c, err = net.ListenPacket("udp4", "0.0.0.0:53")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen for DNS: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if out, err := d.answer(buf[:n]); err == nil {
				_, _ = c.WriteTo(out, from)
			}
		}
	}()
	return func() {
		_ = c.Close()
		<-ended
	}, nil
}

// Name lets a name mean these addresses.
func (l *Lab) Name(host string, ips ...netip.Addr) { l.dns.set(host, ips...) }

// set gives a name its addresses; without addresses it is gone.
func (d *dns) set(name string, ips ...netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(ips) == 0 {
		delete(d.names, strings.ToLower(name))
		return
	}
	d.names[strings.ToLower(name)] = ips
}

// alias makes a name stand for another.
func (d *dns) alias(name, target string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.aliases[strings.ToLower(name)] = strings.ToLower(target)
}

func (d *dns) find(name string) ([]netip.Addr, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if target, ok := d.aliases[name]; ok {
		name = target
	}
	if ips, ok := d.names[name]; ok {
		return ips, true
	}
	for {
		_, rest, ok := strings.Cut(name, ".")
		if !ok {
			return nil, false
		}
		if ips, ok := d.names["*."+rest]; ok {
			return ips, true
		}
		name = rest
	}
}

func (d *dns) answer(query []byte) ([]byte, error) {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	ips, known := d.find(q.Name.String())
	h.Response, h.Authoritative, h.RecursionAvailable = true, true, true
	if !known {
		h.RCode = dnsmessage.RCodeNameError
	}
	b := dnsmessage.NewBuilder(nil, h)
	b.EnableCompression()
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	if err := b.Question(q); err != nil {
		return nil, err
	}
	if err := b.StartAnswers(); err != nil {
		return nil, err
	}
	rh := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 5}
	for _, ip := range ips {
		switch {
		case q.Type == dnsmessage.TypeA && ip.Is4():
			err = b.AResource(rh, dnsmessage.AResource{A: ip.As4()})
		case q.Type == dnsmessage.TypeAAAA && ip.Is6():
			err = b.AAAAResource(rh, dnsmessage.AAAAResource{AAAA: ip.As16()})
		}
		if err != nil {
			return nil, err
		}
	}
	return b.Finish()
}
