// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"fmt"
	"os"
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
	l.must(await(patience, func() error {
		if hops = l.hops(r); len(hops) == 0 {
			return fmt.Errorf("no proxy has noted a connection from %s", r.Local)
		}
		return nil
	}))
	return hops[0]
}

// hops are what proxies have noted of a request so far, in its order. A hop within
// a gateway, from one of its listeners to another, ends the list.
func (l *Lab) hops(r probe.Result) []probe.Hop {
	var out []probe.Hop
	for from, to := r.Local, r.Remote; from != ""; {
		h, ok := l.hop(from, to)
		if !ok {
			break
		}
		out = append(out, h)
		from, to = h.Left, h.Upstream
	}
	return out
}

// hop is the last one of that connection, for ports are used again: also at once, by
// an application and its proxy, so that it takes both ends to tell.
func (l *Lab) hop(downstream, original string) (out probe.Hop, found bool) {
	for _, p := range l.pods {
		if p.agent == nil {
			continue
		}
		b, err := os.ReadFile(p.agent.log)
		l.must(err)
		for line := range strings.Lines(string(b)) {
			if !strings.Contains(line, downstream) {
				continue
			}
			if h, ok := probe.ParseHop(p.Name, line); ok && h.Downstream == downstream && h.Original == original {
				out, found = h, true
			}
		}
	}
	return out, found
}
