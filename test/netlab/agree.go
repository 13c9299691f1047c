// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/test/netlab/probe"
	"github.com/isthmus-mesh/isthmus/test/simulation"
)

// agree holds what came of a request against what the evaluator makes of the
// configuration that the proxies have: the answer, and at each proxy on the way
// the route, the cluster, the endpoint and the caller's name must be those of one
// of the journeys that it allows. A difference is the test's failure, with every
// journey explained.
func (c *Call) agree(r probe.Result) {
	l := c.pod.lab
	l.t.Helper()
	if r.Local == "" {
		return // there was no connection
	}
	err := c.compare(r, l.world(), noted)
	if err == nil {
		return
	}
	gist, _, _ := strings.Cut(err.Error(), "\n")
	l.cameTrue = append(l.cameTrue, "  not yet as the configuration says: "+gist)
	if err := c.agreeAtRest(); err != nil {
		l.t.Errorf("%s%s: what happened is not what the configuration says: %v\n%s", c.name, c.ask, err, c.met(r))
	}
}

// agreeAtRest asks again and compares, with the same configuration in every proxy
// before and after. The request in between that is not compared makes sure that
// Envoy's workers have what its main thread tells of: they take news and
// connections in turn.
func (c *Call) agreeAtRest() error {
	var difference error
	err := await(patience, func() error {
		before, err := c.pod.lab.still()
		if err != nil {
			return err
		}
		rs, err := c.try(2)
		if err != nil {
			return err
		}
		difference = c.compare(rs[1], before, patience)
		return before.inMotion()
	})
	return errors.Join(err, difference)
}

// agreeAll holds the answers of many requests against the configuration, if that
// was the same before them and after: then each must be one that is allowed.
func (c *Call) agreeAll(before *world, rs []probe.Result) {
	l := c.pod.lab
	l.t.Helper()
	if before.inMotion() != nil {
		return
	}
	for i, r := range rs {
		if i == 0 || r.Local == "" {
			continue // the first one finds out whether workers know what the main thread does
		}
		_, err := c.allowed(r, before)
		if err != nil {
			l.t.Errorf("%s%s: number %d is not what the configuration says: %v\n%s", c.name, c.ask, i, err, c.met(r))
			return
		}
	}
}

// noted is how long proxies may take to write their access logs before the request
// is made again.
const noted = 2 * time.Second

// allowed are the journeys that may give this result, without going into where
// they lead; none if no proxy has a say. An error explains all others.
func (c *Call) allowed(r probe.Result, w *world) ([]simulation.Journey, error) {
	if c.overflows {
		return nil, nil
	}
	ask, err := c.request(r)
	if err != nil {
		return nil, err
	}
	all := simulation.Walk(w, simulation.Sender{Machine: c.pod.Name}, ask)
	if !slices.ContainsFunc(all, func(j simulation.Journey) bool { return len(j.Hops) > 0 }) {
		return nil, nil
	}
	out := slices.DeleteFunc(slices.Clone(all), func(j simulation.Journey) bool { return !c.allows(j, r) })
	if len(out) == 0 {
		return nil, fmt.Errorf("the application got %s", explained(all, r, nil))
	}
	return out, nil
}

// compare looks for a journey that fits in every hop; an error explains all that
// might have.
func (c *Call) compare(r probe.Result, w *world, wait time.Duration) error {
	fitting, err := c.allowed(r, w)
	if len(fitting) == 0 || err != nil {
		return err
	}
	var hops []probe.Hop
	trail := c.pod.lab.trail(r)
	err = await(wait, func() error {
		hops = trail()
		if slices.ContainsFunc(fitting, func(j simulation.Journey) bool { return sameWay(j, hops) }) {
			return nil
		}
		err := errors.New("no journey went that way")
		if !slices.ContainsFunc(fitting, func(j simulation.Journey) bool { return expected(j) > len(hops) }) {
			return final{err}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%w: the application got %s", err, explained(fitting, r, hops))
	}
	return nil
}

// met is the configuration that a request met at each proxy that it may have come
// to, for the report of a failure.
func (c *Call) met(r probe.Result) string {
	if r.Local == "" {
		return "there was no connection"
	}
	ask, err := c.request(r)
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, j := range simulation.Walk(c.pod.lab.world(), simulation.Sender{Machine: c.pod.Name}, ask) {
		for _, h := range j.Hops {
			out = append(out, fmt.Sprintf("--- configuration that it meets at %s\n%s", h.Proxy, h.Outcome.Concerned()))
		}
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), "")
}

func explained(js []simulation.Journey, r probe.Result, hops []probe.Hop) string {
	var b strings.Builder
	fmt.Fprintf(&b, "ok=%t status=%d by=%q %s", r.OK, r.Status, r.By(), r.Error)
	for _, h := range hops {
		fmt.Fprintf(&b, "\nnoted: %+v", h)
	}
	for i, j := range js {
		fmt.Fprintf(&b, "\nallowed, %d of %d:\n%s", i+1, len(js), j.Explain())
	}
	return b.String()
}

// allows tells whether a journey may have given this result.
func (c *Call) allows(j simulation.Journey, r probe.Result) bool {
	a := j.Answer
	if a.Undecided != "" {
		return false
	}
	if a.After >= c.timeout() {
		a = simulation.Answer{Closed: true}
	}
	switch {
	case a.OK() != r.OK:
		return false
	case a.Fails > 0:
		return r.Status == http.StatusServiceUnavailable
	case !a.OK() && (a.Closed || c.ask.Protocol == probe.GRPC || c.ask.Protocol == probe.WS || c.ask.Protocol == probe.TCP || c.ask.Protocol == probe.MySQL):
		return r.Status == 0
	case a.By != "" && a.By != "agent" && r.OK && a.By != r.By() && r.By() != "":
		return false
	}
	return r.Status == 0 || a.Status == r.Status
}

// timeout is testapp's, unless a flag says another.
func (c *Call) timeout() time.Duration {
	if i := slices.Index(c.flags, "--timeout"); i >= 0 {
		if d, err := time.ParseDuration(c.flags[i+1]); err == nil {
			return d
		}
	}
	return 3 * time.Second
}

// sameWay tells whether what proxies noted is a journey's way.
func sameWay(j simulation.Journey, hops []probe.Hop) bool {
	for i, want := range j.Hops {
		o := want.Outcome
		switch {
		case len(hops) > 0 && (o.Logged || o.Verdict == simulation.Closed) && sameHop(j, i, hops[0]):
			hops = hops[1:]
		case mustNote(j, i):
			return false
		}
	}
	return len(hops) == 0
}

// mustNote tells whether a journey's hop is noted for sure, and as one of this
// request. A proxy need not note a connection that it just closes, it notes one
// that is kept for other requests when that ends, and bytes that come to it from
// within cannot be told from others.
func mustNote(j simulation.Journey, i int) bool {
	o := j.Hops[i].Outcome
	switch {
	case !o.Logged || o.Verdict == simulation.Closed || o.Verdict == simulation.Refused:
		return false
	case o.HTTP():
		return true
	}
	return i == 0 || !j.Hops[i-1].Outcome.HTTP() && j.Hops[i-1].Endpoint.Internal == ""
}

// expected is how many proxies have to note a journey.
func expected(j simulation.Journey) int {
	n := 0
	for i := range j.Hops {
		if mustNote(j, i) {
			n++
		}
	}
	return n
}

// sameHop compares one proxy's doing with what it noted. Where it answers by itself
// it may or may not have noted the route that it would have taken.
func sameHop(j simulation.Journey, i int, got probe.Hop) bool {
	want := j.Hops[i]
	o := want.Outcome
	peer := strings.Join(o.Peer, ",")
	if i > 0 && j.Hops[i-1].Endpoint.Internal != "" {
		if !got.At(j.Hops[i-1].Endpoint.Internal) {
			return false
		}
		if got.Peer != "" { // the listener before has kept it
			peer = strings.Join(j.Hops[i-1].Outcome.Peer, ",")
		}
	}
	switch {
	case want.Proxy != got.Proxy || peer != got.Peer:
		return false
	case o.Verdict == simulation.Closed && o.Cluster == "":
		// Bytes have a cluster, and a connection to it, before the handshake that
		// turns the client away is over.
		return got.Code == 0
	case o.Verdict == simulation.Closed:
		return got.Cluster == "" || got.Cluster == o.Cluster
	case o.Verdict == simulation.Answered:
		return got.Code == o.Status && (got.Route == "" || got.Route == o.Route)
	case got.Cluster != o.Cluster || got.Route != o.Route:
		return false
	}
	return !want.To.IsValid() || got.Upstream == "" || got.Upstream == want.To.String()
}

// echoPath is testapp's method of gRPC.
const echoPath = "/isthmus.test.Echo/Call"

// request is what the application sent, as the evaluator reads it.
func (c *Call) request(r probe.Result) (simulation.Request, error) {
	local, err := netip.ParseAddrPort(r.Local)
	if err != nil {
		return simulation.Request{}, err
	}
	remote, err := netip.ParseAddrPort(r.Remote)
	if err != nil {
		return simulation.Request{}, err
	}
	out := simulation.Request{
		Source: local, Destination: remote, Protocol: simulation.HTTP1,
		Authority: c.ask.Authority, Path: c.ask.Path, Headers: map[string][]string{},
	}
	for k, v := range c.ask.Headers {
		out.Headers[strings.ToLower(k)] = []string{v}
	}
	switch c.ask.Protocol {
	case probe.TCP, probe.MySQL:
		out.Protocol = simulation.TCP
	case probe.HTTP2:
		out.Protocol = simulation.HTTP2
	case probe.HTTPS:
		layer := simulation.TLS{SNI: c.ask.SNI, Wanted: simulation.For(c.ask.SNI)}
		if slices.Contains(c.flags, "--insecure") {
			layer.Wanted = nil
		}
		if c.certificate != "" {
			layer.Peer = []string{c.certificate}
		}
		out.TLS = []simulation.TLS{layer}
	case probe.WS:
		out.Upgrade = "websocket"
		out.Headers["upgrade"], out.Headers["connection"] = []string{"websocket"}, []string{"Upgrade"}
	case probe.GRPC:
		out.Protocol, out.Method, out.Path = simulation.HTTP2, "POST", echoPath
		out.Headers["content-type"] = []string{"application/grpc"}
	}
	return out, nil
}
