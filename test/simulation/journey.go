// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
)

// World is where proxies and applications stand.
type World interface {
	// Resolve looks a name up.
	Resolve(host string) []netip.Addr
	// Meet says who takes a connection of the sender's to this address.
	Meet(from Sender, to netip.AddrPort) (Place, error)
}

// Sender is who connects: a proxy, or an application, on a machine.
type Sender struct {
	Machine string
	// Proxy is nil for an application.
	Proxy *Proxy
	// Source is the address it connects from; unset for the machine's own.
	Source netip.Addr
}

// Proxy is one of the world's.
type Proxy struct {
	// Name of its machine.
	Name   string
	Config *Config
	// Identity are the names in its certificate.
	Identity []string
	Address  netip.Addr
}

// Place is what stands at an address: a proxy or an application; neither if nobody
// answers there.
type Place struct {
	Proxy *Proxy
	// Accepted is the proxy's address to which the connection is redirected, if it is.
	Accepted netip.AddrPort
	App      Server
}

// Server is an application.
type Server interface {
	// Serve says what it makes of a request.
	Serve(Request) Answer
}

// Answer is what an application or proxy gives back.
type Answer struct {
	// By is the name of the application; empty for a proxy's answer.
	By string
	// Closed: there is no answer, the connection ends.
	Closed bool
	// Status of HTTP, 0 if that is not spoken; GRPC is the status of that if not 0.
	Status int
	GRPC   uint32
	// Fails is how many tries get 503 before one gets this answer.
	Fails uint32
	// After is how long it takes, as far as that is configured.
	After time.Duration
	// Undecided says why there is no telling.
	Undecided string
}

// OK tells whether it is an answer, and of a status below 400.
func (a Answer) OK() bool {
	return !a.Closed && a.Undecided == "" && a.Fails == 0 && a.Status < 400 && a.GRPC == 0
}

// String is for messages.
func (a Answer) String() string {
	switch {
	case a.Undecided != "":
		return "undecided: " + a.Undecided
	case a.Closed:
		return "no answer"
	case a.Fails > 0:
		return fmt.Sprintf("503, and %d by %s when it was tried %d times", a.Status, a.By, a.Fails+1)
	case a.By == "":
		return fmt.Sprintf("%d by a proxy", a.Status)
	case a.Status == 0:
		return "an answer by " + a.By
	}
	return fmt.Sprintf("%d by %s", a.Status, a.By)
}

// Hop is one proxy on the way.
type Hop struct {
	Proxy   string
	Outcome Outcome
	// Endpoint to which the request went on, and the address of it.
	Endpoint Endpoint
	To       netip.AddrPort
}

// Journey is one way that a request may take from who asks to who answers.
type Journey struct {
	Hops []Hop
	// End is what the last hop got, Answer what came back to who asked.
	End, Answer Answer
	// Share of such requests, counting endpoints of a cluster alike.
	Share float64
}

// maxHops bounds a journey; one that is longer goes round in circles.
const maxHops = 12

// Walk follows a request from its sender to whoever answers, on every way that it
// may take.
func Walk(w World, from Sender, r Request) []Journey {
	t := &traveller{world: w}
	t.connect(from, r, Journey{Share: 1})
	return t.done
}

type traveller struct {
	world World
	done  []Journey
}

// arrive ends a journey.
func (t *traveller) arrive(j Journey, a Answer) {
	j.End = a
	through := false // a tunnel, out of which the answer comes
	for i := len(j.Hops) - 1; i >= 0; i-- {
		o := j.Hops[i].Outcome
		through = through || o.ends && o.Verdict == Forwarded
		if o.opens && !through && a.Undecided == "" {
			a = Answer{Closed: true, After: a.After}
		}
		a = passedBack(o, a)
	}
	j.Answer = a
	t.done = append(t.done, j)
}

// passedBack is what a hop makes of the answer that it gets.
func passedBack(o Outcome, a Answer) Answer {
	if o.Verdict != Forwarded || a.Undecided != "" {
		return a
	}
	if !o.http || o.ends {
		return a
	}
	if a.Closed {
		a = Answer{Status: 503, After: a.After}
	}
	if a.Fails > 0 {
		a = o.triedAgain(a)
	}
	if try := o.TryTimeout; try > 0 && a.After > try {
		a = Answer{Status: 504, After: try * time.Duration(o.Retries+1)}
	}
	if o.Timeout > 0 && a.After > o.Timeout {
		a = Answer{Status: 504, After: o.Timeout}
	}
	a.After += o.Delay
	return a
}

// triedAgain is what a hop makes of an application that fails at first: its own tries
// are one for whoever is before it.
func (o Outcome) triedAgain(a Answer) Answer {
	switch {
	case !o.retries(http.StatusServiceUnavailable):
	case len(o.Endpoints) > 1:
		return Answer{Undecided: "each endpoint counts its own tries"}
	default:
		a.Fails /= o.Retries + 1
	}
	return a
}

// retries tells whether the route has such an answer tried again.
func (o Outcome) retries(status uint32) bool {
	return slices.ContainsFunc(strings.Split(o.RetryOn, ","), func(on string) bool {
		switch strings.TrimSpace(on) {
		case "5xx":
			return status >= 500
		case "gateway-error":
			return status >= 502 && status <= 504
		case "retriable-status-codes":
			return slices.Contains(o.RetryStatus, status)
		}
		return false
	})
}

// connect meets whoever is at the request's destination.
func (t *traveller) connect(from Sender, r Request, j Journey) {
	place, err := t.world.Meet(from, r.Destination)
	switch {
	case err != nil:
		t.arrive(j, Answer{Undecided: err.Error()})
	case place.Proxy != nil:
		r.Accepted = place.Accepted
		t.pass(place.Proxy, r, j)
	case place.App != nil:
		t.arrive(j, place.App.Serve(r))
	default:
		t.arrive(j, Answer{Closed: true})
	}
}

// pass goes through a proxy.
func (t *traveller) pass(p *Proxy, r Request, j Journey) {
	r.Certificate = p.Identity
	for _, o := range Evaluate(p.Config, r) {
		next := Journey{Share: j.Share * o.Share, Hops: append(j.Hops[:len(j.Hops):len(j.Hops)], Hop{Proxy: p.Name, Outcome: o})}
		switch {
		case len(next.Hops) > maxHops:
			t.arrive(next, Answer{Undecided: "it goes round in circles"})
		case o.Verdict == Forwarded:
			t.goOn(p, next)
		case o.Verdict == Answered:
			t.arrive(next, Answer{Status: o.Status, GRPC: o.GRPC, After: o.Delay})
		case o.Verdict == Undecided:
			t.arrive(next, Answer{Undecided: o.Reason})
		default:
			t.arrive(next, Answer{Closed: true, After: o.Delay})
		}
	}
}

// goOn goes to each of the endpoints of the last hop.
func (t *traveller) goOn(p *Proxy, j Journey) {
	last := len(j.Hops) - 1
	o := j.Hops[last].Outcome
	share := j.Share / float64(len(o.Endpoints))
	for _, e := range o.Endpoints {
		targets := t.targets(e)
		for _, to := range targets {
			next := Journey{Share: share / float64(len(targets)), Hops: append([]Hop(nil), j.Hops...)}
			next.Hops[last].Endpoint, next.Hops[last].To = e, to
			t.send(p, e, next)
		}
		if len(targets) == 0 {
			next := Journey{Share: share, Hops: append([]Hop(nil), j.Hops...)}
			next.Hops[last].Endpoint = e
			t.arrive(next, Answer{Closed: true})
		}
	}
}

// targets are the addresses of an endpoint; the unset one for what has none.
func (t *traveller) targets(e Endpoint) []netip.AddrPort {
	switch {
	case e.Internal != "" || e.Path != "":
		return []netip.AddrPort{{}}
	case e.Name == "":
		return []netip.AddrPort{e.Address}
	}
	var out []netip.AddrPort
	for _, ip := range t.world.Resolve(e.Name) {
		if !e.leavesOut(ip) {
			out = append(out, netip.AddrPortFrom(ip, e.Port))
		}
	}
	return out
}

// leavesOut tells whether the cluster drops an address that DNS has for the name.
func (e Endpoint) leavesOut(ip netip.Addr) bool {
	in := slices.ContainsFunc(e.never.GetRanges(), func(r *xdscorev3.CidrRange) bool {
		from, err := netip.ParseAddr(r.GetAddressPrefix())
		return err == nil && netip.PrefixFrom(from, int(r.GetPrefixLen().GetValue())).Contains(ip)
	})
	return e.never != nil && in != e.never.GetInvertMatch()
}

func (t *traveller) send(p *Proxy, e Endpoint, j Journey) {
	hop := j.Hops[len(j.Hops)-1]
	why, err := hop.Outcome.refused(hop.To)
	switch {
	case err != nil:
		t.arrive(j, Answer{Undecided: err.Error()})
		return
	case why != "":
		t.arrive(j, Answer{Status: http.StatusForbidden})
		return
	}
	r, err := hop.Outcome.Upstream(e, hop.To, p.Identity)
	if err != nil {
		t.arrive(j, Answer{Undecided: err.Error()})
		return
	}
	from := Sender{Machine: p.Name, Proxy: p, Source: hop.Outcome.source()}
	r.Source = netip.AddrPortFrom(p.Address, 0)
	if from.Source.IsValid() {
		r.Source = netip.AddrPortFrom(from.Source, 0)
	}
	switch {
	case e.Internal != "":
		t.pass(p, r, j)
	case e.Path != "":
		t.arrive(j, Answer{Undecided: "socket " + e.Path})
	default:
		t.connect(from, r, j)
	}
}

// Explain is every hop's trace and the end, for a person.
func (j Journey) Explain() string {
	var b strings.Builder
	for _, h := range j.Hops {
		fmt.Fprintf(&b, "%s:\n%s", h.Proxy, h.Outcome.Explain())
		if h.Outcome.Verdict == Forwarded {
			fmt.Fprintf(&b, "  → %s\n", h.Endpoint)
		}
	}
	fmt.Fprintf(&b, "end: %s; who asked gets: %s\n", j.End, j.Answer)
	return b.String()
}
