// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// Loss is what came of the requests of a Flood.
type Loss struct {
	// Requests were made, of which Codes tells how many ended with a status; "-1" is
	// none.
	Requests int
	Codes    map[string]int
}

// Err tells how many requests were lost.
func (l Loss) Err() error {
	switch ok := l.Codes["200"]; {
	case l.Requests == 0:
		return fmt.Errorf("no request was made")
	case ok != l.Requests:
		return fmt.Errorf("%d of %d requests were lost: by status %v", l.Requests-ok, l.Requests, l.Codes)
	}
	return nil
}

// Flood asks for a URL a hundred times a second over four connections that stay, by
// fortio, until the returned function is called. Call.Load makes a connection for
// each request.
func (p *Pod) Flood(url string) func() Loss {
	l := p.lab
	l.t.Helper()
	fortio := l.program("fortio")
	if _, err := os.Stat(fortio); err != nil {
		l.t.Skipf("skipped: not built (make bin/fortio): %v", err)
	}
	var out, said bytes.Buffer
	c := program{name: "fortio", uid: uidApp, dir: l.dir, args: []string{
		fortio, "load", "-quiet", "-allow-initial-errors", "-c", "4", "-qps", "100", "-t", "0", "-timeout", "30s", "-json", "-", url,
	}}.command(l.t.Context())
	c.Stdout, c.Stderr = &out, &said
	l.must(p.space.do(c.Start))
	return func() Loss {
		l.t.Helper()
		l.must(c.Process.Signal(syscall.SIGINT))
		if err := c.Wait(); err != nil {
			l.t.Fatalf("netlab: fortio: %v: %s", err, said.String())
		}
		return l.loss(out.Bytes())
	}
}

// loss reads fortio's own result.
func (l *Lab) loss(text []byte) Loss {
	l.t.Helper()
	var r struct {
		RetCodes map[string]int
	}
	if err := json.Unmarshal(text, &r); err != nil {
		l.t.Fatalf("netlab: fortio said %s: %v", strconv.Quote(string(text)), err)
	}
	out := Loss{Codes: r.RetCodes}
	for _, n := range r.RetCodes {
		out.Requests += n
	}
	return out
}
