// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/test/netlab/probe"
)

// Hop waits until a proxy has noted the request that gave this result, and returns
// what it noted: the caller's own sidecar, or the proxy that a caller without one
// came to. There is none if the connection reached no proxy, or was cut before a
// filter chain was chosen.
func (l *Lab) Hop(r probe.Result) probe.Hop {
	l.t.Helper()
	var hops []probe.Hop
	trail := l.trail(r)
	l.must(await(patience, func() error {
		if hops = trail(); len(hops) == 0 {
			return fmt.Errorf("no proxy has noted a connection from %s", r.Local)
		}
		return nil
	}))
	return hops[0]
}

// hops are what proxies have noted of a request so far, in its order. A connection
// that is kept for others is noted when it ends, so it may be missing. Within a
// proxy, connections have no ports to tell them by: requests are found by their ID
// alone, tunnels by where they lead, and bytes not at all. Seen tells from where
// else a proxy may have seen a connection come.
func (l *Lab) hops(r probe.Result, seen func(from, to string) string) []probe.Hop {
	var out []probe.Hop
	all := l.noted()
	from, to := r.Local, r.Remote
	for {
		id := requestID(out)
		come := func(from string) func(probe.Hop) bool {
			return func(h probe.Hop) bool {
				// Proxies keep connections among themselves: one before may have used this one.
				return h.Downstream == from && h.Original == to && (h.ID == id || h.ID == "" || id == "")
			}
		}
		h, ok := last(all, come(from))
		if !ok {
			h, ok = last(all, come(seen(from, to)))
		}
		if !ok && len(out) > 0 {
			h, ok = last(all, beyond(out))
		}
		if !ok {
			return out
		}
		out = append(out, h)
		from, to = h.Left, h.Upstream
	}
}

// beyond finds the hop after those, where it has no connection of its own.
func beyond(hops []probe.Hop) func(probe.Hop) bool {
	first, h, id := hops[0], hops[len(hops)-1], requestID(hops)
	return func(next probe.Hop) bool {
		switch {
		case h.Inside() || h.Method == http.MethodConnect:
			return false
		case id != "":
			return next.ID == id && next.Inside()
		}
		return h.Within() && next.Method == http.MethodConnect && next.Authority == first.Original && sameHost(next.Downstream, first.Downstream)
	}
}

// requestID is that of the last one that was read as HTTP.
func requestID(hops []probe.Hop) string {
	id := ""
	for _, h := range hops {
		id = cmp.Or(h.ID, id)
	}
	return id
}

func sameHost(a, b string) bool {
	one, _, err := net.SplitHostPort(a)
	other, _, otherErr := net.SplitHostPort(b)
	return one == other && err == nil && otherErr == nil
}

// last is the latest that fits: ports are used again, also at once, by an
// application and its proxy.
func last(all []probe.Hop, fits func(probe.Hop) bool) (probe.Hop, bool) {
	for _, h := range slices.Backward(all) {
		if fits(h) {
			return h, true
		}
	}
	return probe.Hop{}, false
}

// noted is all that proxies have noted so far.
func (l *Lab) noted() []probe.Hop {
	var out []probe.Hop
	for _, p := range l.pods {
		if p.agent == nil {
			continue
		}
		b, err := os.ReadFile(p.agent.log)
		l.must(err)
		for line := range strings.Lines(string(b)) {
			if h, ok := probe.ParseHop(p.Name, line); ok {
				out = append(out, h)
			}
		}
	}
	return out
}
