// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/isthmus-mesh/isthmus/test/netlab/probe"
)

// patience is how long an expectation may take to come true: configuration
// travels.
const patience = 60 * time.Second

// Call is a request that an application in a pod is about to make.
type Call struct {
	pod   *Pod
	ask   probe.Probe
	name  string
	flags []string
	// certificate is the name in the one that is shown to the server.
	certificate string
	// overflows is what Overflows says.
	overflows bool
}

// Ask is about to ask for what the URL says: http://b/path, http2://b/, https://b/,
// grpc://b:50051, ws://b/ws, or tcp://b:9000 for a line and its answer.
func (p *Pod) Ask(url string) *Call {
	p.lab.t.Helper()
	ask, err := probe.Parse(p.Name, url)
	p.lab.must(err)
	return &Call{pod: p, ask: ask}
}

// Named gives the call a name for messages.
func (c *Call) Named(name string) *Call {
	c.name = name + ": "
	return c
}

// Via connects to this address, whatever the URL says.
func (c *Call) Via(addr string) *Call {
	c.ask.Destination = addr
	return c
}

// At connects to this pod, to the port that the URL says.
func (c *Call) At(p *Pod) *Call {
	_, port, err := net.SplitHostPort(c.ask.Destination)
	c.pod.lab.must(err)
	return c.Via(net.JoinHostPort(p.IP.String(), port))
}

// Header sends this header.
func (c *Call) Header(name, value string) *Call {
	if c.ask.Headers == nil {
		c.ask.Headers = map[string]string{}
	}
	c.ask.Headers[name] = value
	return c
}

// Overflows says that the request exceeds a limit of how many there may be at once:
// the evaluator sees one request.
func (c *Call) Overflows() *Call {
	c.overflows = true
	return c
}

// With adds flags of testapp.
func (c *Call) With(flags ...string) *Call {
	c.flags = append(c.flags, flags...)
	return c
}

// Want makes the request until its status is as wanted, and returns the result.
func (c *Call) Want(status int) probe.Result {
	c.pod.lab.t.Helper()
	return c.until(func(r probe.Result) error {
		if r.Status != status {
			return fmt.Errorf("status %d %s, want %d", r.Status, r.Error, status)
		}
		return nil
	})
}

// WantOK makes the request until it succeeds, and returns the result.
func (c *Call) WantOK() probe.Result {
	c.pod.lab.t.Helper()
	return c.until(func(r probe.Result) error {
		if !r.OK {
			return fmt.Errorf("status %d %s, want success", r.Status, r.Error)
		}
		return nil
	})
}

// WantRefused makes the request until it fails without an answer or with a status
// from 400 on, three times in a row: what is refused must stay refused.
func (c *Call) WantRefused() probe.Result {
	c.pod.lab.t.Helper()
	var r probe.Result
	for range 3 {
		r = c.until(func(r probe.Result) error {
			if r.OK {
				return fmt.Errorf("status %d, want it refused", r.Status)
			}
			return nil
		})
	}
	return r
}

// WantMutual makes the request until it succeeds and the proxy of who answered has
// seen the caller's certificate, or none.
func (c *Call) WantMutual(mutual bool) probe.Result {
	c.pod.lab.t.Helper()
	q := question{From: c.pod.Name, Mutual: &mutual}
	return c.until(func(r probe.Result) error { return q.check(c.pod.lab, r) })
}

// Until makes the request until check has no complaint.
func (c *Call) Until(check func(probe.Result) error) probe.Result {
	c.pod.lab.t.Helper()
	return c.until(check)
}

func (c *Call) until(check func(probe.Result) error) probe.Result {
	c.pod.lab.t.Helper()
	c.pod.lab.Ready()
	var last probe.Result
	err := await(patience, func() error {
		rs, err := c.try(1)
		if err != nil {
			return err
		}
		last = rs[0]
		return check(last)
	})
	if err != nil {
		c.pod.lab.t.Fatalf("%s%s: %v\n%s", c.name, c.ask, err, c.met(last))
	}
	c.pod.lab.settled(c.ask, last)
	c.agree(last)
	return last
}

// settled hears of every probe that came out as wanted, while the configuration
// that made it so is in force.
func (l *Lab) settled(p probe.Probe, r probe.Result) {
	l.cameTrue = append(l.cameTrue, fmt.Sprintf("%s: %d %s", p, r.Status, r.By()))
}

// Times makes the request n times on end and returns every result.
func (c *Call) Times(n int) []probe.Result {
	c.pod.lab.t.Helper()
	c.pod.lab.Ready()
	before, err := c.pod.lab.still()
	c.pod.lab.must(err)
	rs, err := c.try(n)
	c.pod.lab.must(err)
	c.agreeAll(before, rs)
	return rs
}

// Start makes the request once; the returned function waits for its result.
func (c *Call) Start() func() probe.Result {
	done := make(chan probe.Result, 1)
	go func() {
		rs, err := c.try(1)
		if err != nil {
			rs = []probe.Result{{Error: err.Error()}}
		}
		done <- rs[0]
	}()
	return func() probe.Result { return <-done }
}

// Load makes the request over and over until the returned function is called,
// which returns every result.
func (c *Call) Load() func() []probe.Result {
	stop, done := make(chan struct{}), make(chan []probe.Result, 1)
	go func() {
		var all []probe.Result
		defer func() { done <- all }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			rs, err := c.try(20, "--interval", "10ms", "--timeout", "30s")
			if err != nil {
				c.pod.lab.t.Errorf("%s: %v", c.ask, err)
				return
			}
			all = append(all, rs...)
		}
	}()
	return func() []probe.Result {
		close(stop)
		return <-done
	}
}

// Names counts the answers of n requests by who answered; a failed one counts
// under its status.
func (c *Call) Names(n int) map[string]int {
	c.pod.lab.t.Helper()
	out := map[string]int{}
	for _, r := range c.Times(n) {
		if !r.OK {
			out[strconv.Itoa(r.Status)]++
			continue
		}
		out[r.By()]++
	}
	return out
}

func (c *Call) try(n int, more ...string) ([]probe.Result, error) {
	ctx, cancel := context.WithTimeout(c.pod.lab.t.Context(), time.Duration(n)*(c.timeout()+10*time.Second))
	defer cancel()
	args := slices.Concat([]string{c.pod.lab.program("testapp")}, c.ask.Args(), c.flags, more)
	args = append(args, "--cacert", c.pod.lab.OutsideCA(), "--count", strconv.Itoa(n))
	// A failed request makes the program fail; what it printed says how.
	out, runErr := run(ctx, c.pod.space, program{name: "testapp", uid: uidApp, dir: c.pod.lab.dir, args: args})
	var rs []probe.Result
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r probe.Result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("read %q: %w", lines.Text(), err)
		}
		rs = append(rs, r)
	}
	if len(rs) != n {
		return nil, fmt.Errorf("%d results of %d: %w", len(rs), n, runErr)
	}
	return rs, nil
}

// Ready waits until every pod is.
func (l *Lab) Ready() {
	l.t.Helper()
	for _, p := range slices.Concat(l.pods, l.hosts) {
		if err := await(patience, p.ready); err != nil {
			l.t.Fatalf("netlab: %s is not ready: %v", p.Name, err)
		}
	}
}
