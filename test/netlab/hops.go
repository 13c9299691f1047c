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
	var out probe.Hop
	l.must(await(patience, func() error {
		for _, p := range l.pods {
			if h, ok := p.hop(r); ok {
				out = h
				return nil
			}
		}
		return fmt.Errorf("no proxy has noted a connection from %s", r.Local)
	}))
	return out
}

// hop is the last one of that connection, for ports are used again.
func (p *Pod) hop(r probe.Result) (out probe.Hop, found bool) {
	if p.agent == nil {
		return out, false
	}
	b, err := os.ReadFile(p.agent.log)
	p.lab.must(err)
	for line := range strings.Lines(string(b)) {
		if !strings.Contains(line, r.Local) {
			continue
		}
		if h, ok := probe.ParseHop(p.Name, line); ok && h.Downstream == r.Local {
			out, found = h, true
		}
	}
	return out, found
}
