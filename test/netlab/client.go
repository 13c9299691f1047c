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
)

// patience is how long an expectation may take to come true: configuration
// travels.
const patience = 15 * time.Second

// Result is what an application's request gave.
type Result struct {
	OK     bool    `json:"ok"`
	Status int     `json:"status"`
	Error  string  `json:"error"`
	Millis float64 `json:"ms"`
	Body   any     `json:"body"`
}

// Field is a field of a JSON answer as text, such as the server's name.
func (r Result) Field(path ...string) string {
	v := r.Body
	for _, k := range path {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// Call is a request that an application in a pod is about to make.
type Call struct {
	pod  *Pod
	name string
	args []string
}

// Named gives the call a name for messages.
func (c *Call) Named(name string) *Call {
	c.name = name + ": "
	return c
}

// HTTP gets the URL; more are flags of testapp.
func (p *Pod) HTTP(url string, more ...string) *Call { return p.call("http", url, more) }

// TCP sends a line to host:port and reads one.
func (p *Pod) TCP(addr string, more ...string) *Call { return p.call("tcp", addr, more) }

// GRPC calls the echo service at host:port.
func (p *Pod) GRPC(addr string, more ...string) *Call { return p.call("grpc", addr, more) }

// WS echoes over a WebSocket.
func (p *Pod) WS(url string, more ...string) *Call { return p.call("ws", url, more) }

func (p *Pod) call(verb, target string, more []string) *Call {
	return &Call{pod: p, args: append([]string{verb, target}, more...)}
}

// Want makes the request until its status is as wanted, and returns the result.
func (c *Call) Want(status int) Result {
	c.pod.lab.t.Helper()
	return c.until(func(r Result) error {
		if r.Status != status {
			return fmt.Errorf("status %d %s, want %d", r.Status, r.Error, status)
		}
		return nil
	})
}

// WantOK makes the request until it succeeds, and returns the result.
func (c *Call) WantOK() Result {
	c.pod.lab.t.Helper()
	return c.until(func(r Result) error {
		if !r.OK {
			return fmt.Errorf("status %d %s, want success", r.Status, r.Error)
		}
		return nil
	})
}

// WantRefused makes the request until it fails without an answer or with a status
// from 400 on, three times in a row: what is refused must stay refused.
func (c *Call) WantRefused() Result {
	c.pod.lab.t.Helper()
	var r Result
	for range 3 {
		r = c.until(func(r Result) error {
			if r.OK {
				return fmt.Errorf("status %d, want it refused", r.Status)
			}
			return nil
		})
	}
	return r
}

// Until makes the request until check has no complaint.
func (c *Call) Until(check func(Result) error) Result {
	c.pod.lab.t.Helper()
	return c.until(check)
}

func (c *Call) until(check func(Result) error) Result {
	c.pod.lab.t.Helper()
	c.pod.lab.Ready()
	var last Result
	err := await(patience, func() error {
		rs, err := c.try(1)
		if err != nil {
			return err
		}
		last = rs[0]
		return check(last)
	})
	if err != nil {
		c.pod.lab.t.Fatalf("%s%s: %v: %v", c.name, c.pod.Name, c.args, err)
	}
	return last
}

// Times makes the request n times on end and returns every result.
func (c *Call) Times(n int) []Result {
	c.pod.lab.t.Helper()
	c.pod.lab.Ready()
	rs, err := c.try(n)
	c.pod.lab.must(err)
	return rs
}

// Start makes the request once; the returned function waits for its result.
func (c *Call) Start() func() Result {
	done := make(chan Result, 1)
	go func() {
		rs, err := c.try(1)
		if err != nil {
			rs = []Result{{Error: err.Error()}}
		}
		done <- rs[0]
	}()
	return func() Result { return <-done }
}

// Load makes the request over and over until the returned function is called,
// which returns every result.
func (c *Call) Load() func() []Result {
	stop, done := make(chan struct{}), make(chan []Result, 1)
	go func() {
		var all []Result
		defer func() { done <- all }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			rs, err := c.try(20)
			if err != nil {
				c.pod.lab.t.Errorf("%s: %v: %v", c.pod.Name, c.args, err)
				return
			}
			all = append(all, rs...)
		}
	}()
	return func() []Result {
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
		name := r.Field("name")
		if !r.OK {
			name = strconv.Itoa(r.Status)
		}
		out[name]++
	}
	return out
}

func (c *Call) try(n int) ([]Result, error) {
	ctx, cancel := context.WithTimeout(c.pod.lab.t.Context(), time.Duration(n)*10*time.Second)
	defer cancel()
	args := append([]string{c.pod.lab.program("testapp")}, c.args...)
	// A failed request makes the program fail; what it printed says how.
	out, runErr := run(ctx, c.pod.space, program{name: "testapp", uid: uidApp, dir: c.pod.lab.dir, args: append(args, "--count", strconv.Itoa(n))})
	var rs []Result
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r Result
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
		if err := await(30*time.Second, p.ready); err != nil {
			l.t.Fatalf("netlab: %s is not ready: %v", p.Name, err)
		}
	}
}

// Line is a connection that stays open.
type Line struct {
	conn net.Conn
	in   *bufio.Reader
}

// Dial connects to ip:port from inside the pod, as an application of root's would.
func (p *Pod) Dial(addr string) *Line {
	p.lab.t.Helper()
	p.lab.Ready()
	l := &Line{}
	p.lab.must(p.space.do(func() (err error) {
		l.conn, err = net.DialTimeout("tcp", addr, 5*time.Second)
		return err
	}))
	l.in = bufio.NewReader(l.conn)
	p.lab.later(func() { _ = l.conn.Close() })
	return l
}

// Echo sends a line to a TCP echo server and returns its answer.
func (l *Line) Echo(text string) (string, error) {
	if err := l.conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(l.conn, text); err != nil {
		return "", err
	}
	return l.in.ReadString('\n')
}
