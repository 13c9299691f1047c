// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/test/netlab/probe"
)

// question is a probe and what is to come of it, as a case in YAML says it.
type question struct {
	// From is a pod, or a host by its name. Ask is a URL as Pod.Ask takes it, Via
	// where to connect to instead, in which a pod or host may stand for its address.
	From string `json:"from"`
	Ask  string `json:"ask"`
	// Hold is a URL as Pod.Hold takes it: nothing is asked, but a connection kept
	// for the rest of the case.
	Hold    string            `json:"hold"`
	Via     string            `json:"via"`
	SNI     string            `json:"sni"`
	Headers map[string]string `json:"headers"`
	// Certificate is shown to the server: one for this name, by the CA outside.
	// Insecure trusts any.
	Certificate string `json:"certificate"`
	Insecure    bool   `json:"insecure"`

	// Status is the answer's; without it the request must just succeed.
	Status  int  `json:"status"`
	Refused bool `json:"refused"`
	// By is who answers; Among are all those that do when one asks often.
	By    string   `json:"by"`
	Among []string `json:"among"`
	// Answer are fields of the answer, such as path or headers.x-user; "-" is none.
	Answer map[string]string `json:"answer"`
	// Caller is who called the server, or "egress": the egress gateway where there
	// is one, and who asks where there is none.
	Caller string `json:"caller"`
	// Cluster is that of the first proxy on the way, Flags its response flags.
	Cluster string `json:"cluster"`
	Flags   string `json:"flags"`
	// Mutual says whether the proxy of who answers was shown the caller's certificate.
	Mutual *bool `json:"mutual"`
	// Protocol is what the last proxy on the way was spoken to in.
	Protocol string `json:"protocol"`
	// Connections is how many the first proxy makes for five requests in a row.
	Connections int `json:"connections"`
	// Keepalive is after how much silence the kernel probes the connection that the
	// first proxy made; "-" is never.
	Keepalive string `json:"keepalive"`
	// Idle is a cluster of From's proxy, to which every connection ends: nobody says
	// anything any more.
	Idle string `json:"idle"`
}

// overflow is Envoy's flag for a request that exceeds the limits of a pool.
const overflow = "UO"

// ask asks until everything is as it should be.
func (q question) ask(l *Lab) {
	l.t.Helper()
	switch {
	case q.Hold != "":
		l.Find(q.From).Hold(q.Hold)
		return
	case q.Idle != "":
		l.Find(q.From).wantIdle(q.Idle)
		return
	}
	c := l.Find(q.From).Ask(q.Ask)
	if q.Via != "" {
		c.Via(l.destination(q.Via))
	}
	c.ask.SNI = cmp.Or(q.SNI, c.ask.SNI)
	c.ask.Headers = q.Headers
	c.overflows = q.Flags == overflow
	if q.Certificate != "" {
		cert, key, err := l.outside.issue(q.Certificate)
		l.must(err)
		c.certificate = q.Certificate
		c.With("--cert", cert, "--key", key)
	}
	if q.Insecure {
		c.With("--insecure")
	}
	switch {
	case q.Refused:
		c.WantRefused()
	case len(q.Among) > 0:
		c.WantAmong(q.Among...)
	case q.Connections > 0:
		c.WantConnections(q.Connections)
	default:
		c.Until(func(r probe.Result) error { return q.check(l, r) })
	}
}

func (q question) check(l *Lab, r probe.Result) error {
	if q.Status == 0 && !r.OK || q.Status != 0 && r.Status != q.Status {
		return fmt.Errorf("status %d %s, want %d", r.Status, r.Error, q.Status)
	}
	var errs []error
	if q.By != "" && r.By() != q.By {
		errs = append(errs, fmt.Errorf("answered by %q, want %q", r.By(), q.By))
	}
	for name, want := range q.Answer {
		if got := cmp.Or(r.Field(strings.Split(name, ".")...), "-"); got != want {
			errs = append(errs, fmt.Errorf("%s is %q, want %q", name, got, want))
		}
	}
	if q.Caller != "" {
		errs = append(errs, q.caller(l).CheckCalled(r))
	}
	return errors.Join(append(errs, q.checkHops(l, r))...)
}

func (q question) caller(l *Lab) *Pod {
	if q.Caller != "egress" {
		return l.Find(q.Caller)
	}
	if i := slices.IndexFunc(l.pods, func(p *Pod) bool { return p.Name == egressName }); i >= 0 {
		return l.pods[i]
	}
	return l.Find(q.From)
}

// checkHops looks at what proxies noted, which takes a moment to be written.
func (q question) checkHops(l *Lab, r probe.Result) error {
	if q.Cluster == "" && q.Flags == "" && q.Mutual == nil && q.Protocol == "" && q.Keepalive == "" {
		return nil
	}
	trail := l.trail(r)
	return await(noted, func() error {
		hops := trail()
		if len(hops) == 0 {
			return fmt.Errorf("no proxy has noted a connection from %s", r.Local)
		}
		var errs []error
		if first := hops[0]; q.Cluster != "" && first.Cluster != q.Cluster {
			errs = append(errs, fmt.Errorf("sent to cluster %q, want %q", first.Cluster, q.Cluster))
		}
		if first := hops[0]; q.Flags != "" && first.Flags != q.Flags {
			errs = append(errs, fmt.Errorf("response flags %q, want %q", first.Flags, q.Flags))
		}
		if last := hops[len(hops)-1]; q.Protocol != "" && last.Protocol != q.Protocol {
			errs = append(errs, fmt.Errorf("%s was spoken to in %q, want %q", last.Proxy, last.Protocol, q.Protocol))
		}
		if q.Keepalive != "" {
			errs = append(errs, l.keptAlive(hops[0], q.Keepalive))
		}
		if q.Mutual != nil {
			errs = append(errs, mutual(hops[len(hops)-1], l.Find(q.From), r.By(), *q.Mutual))
		}
		return errors.Join(errs...)
	})
}

func mutual(last probe.Hop, from *Pod, by string, want bool) error {
	if last.Proxy != by {
		return fmt.Errorf("the proxy of %s has noted nothing yet, the last one is %+v", by, last)
	}
	peer := ""
	if want {
		peer = fmt.Sprintf("spiffe://%s/ns/%s/sa/%s", clusterDomain, from.Namespace, from.Account)
	}
	if last.Peer != peer {
		return fmt.Errorf("%s was called by %q, want %q", by, last.Peer, peer)
	}
	return nil
}

// WantAmong makes the request until of forty in a row every one is answered, and
// by these applications, all of them.
func (c *Call) WantAmong(names ...string) {
	c.pod.lab.t.Helper()
	slices.Sort(names)
	c.Until(func(probe.Result) error {
		got := c.Names(40)
		if who := slices.Sorted(keys(got)); !slices.Equal(who, names) {
			return fmt.Errorf("answered by %v, want all of %v", got, names)
		}
		return nil
	})
}

// CheckCalled checks that the application that answered was called by this pod.
func (p *Pod) CheckCalled(r probe.Result) error {
	if !r.OK {
		return fmt.Errorf("status %d %s", r.Status, r.Error)
	}
	host, _, err := net.SplitHostPort(r.Caller())
	if ip, _ := netip.ParseAddr(host); err != nil || !p.has(ip) {
		return fmt.Errorf("called from %s, want %s at %s", r.Caller(), p.Name, p.IP)
	}
	return nil
}

// destination is an address and port, where a pod or host may stand for its address,
// with "6." before it for that of IPv6.
func (l *Lab) destination(text string) string {
	l.t.Helper()
	host, port, err := net.SplitHostPort(text)
	l.must(err)
	if _, err := netip.ParseAddr(host); err == nil {
		return text
	}
	if name, ok := strings.CutPrefix(host, "6."); ok {
		return net.JoinHostPort(l.Find(name).IP6.String(), port)
	}
	return net.JoinHostPort(l.Find(host).IP.String(), port)
}
