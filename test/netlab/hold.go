// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/test/netlab/probe"
)

// Line is a connection or stream that an application keeps.
type Line struct {
	in    io.WriteCloser
	out   chan string
	first string
}

// First is the answer to the line "first", which Hold sends.
func (l *Line) First() string { return l.first }

// Hold opens a connection that stays: tcp://b:9000, grpc://b:50051 (one stream) or
// ws://b/ws. It has carried a line when Hold returns.
func (p *Pod) Hold(url string) *Line {
	p.lab.t.Helper()
	p.lab.Ready()
	c := program{name: "testapp", uid: uidApp, dir: p.lab.dir, args: []string{p.lab.program("testapp"), "hold", url}}.command(p.lab.t.Context())
	in, err := c.StdinPipe()
	p.lab.must(err)
	out, err := c.StdoutPipe()
	p.lab.must(err)
	p.lab.must(p.space.do(c.Start))
	l := &Line{in: in, out: make(chan string)}
	go func() {
		defer close(l.out)
		for s := bufio.NewScanner(out); s.Scan(); {
			l.out <- s.Text()
		}
	}()
	p.lab.later(func() {
		_ = in.Close()
		_ = c.Process.Kill()
		for range l.out { // until it has ended
		}
		_ = c.Wait()
	})
	if l.first, err = l.Echo("first"); err != nil {
		p.lab.t.Fatalf("netlab: hold %s: %v", url, err)
	}
	return l
}

// Close ends the connection.
func (l *Line) Close() { _ = l.in.Close() }

// Echo sends a line and returns its answer.
func (l *Line) Echo(text string) (string, error) {
	if _, err := fmt.Fprintln(l.in, text); err != nil {
		return "", fmt.Errorf("the connection is gone: %w", err)
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case answer, ok := <-l.out:
		if !ok {
			return "", errors.New("the connection is gone")
		}
		var r probe.Result
		if err := json.Unmarshal([]byte(answer), &r); err != nil {
			return "", fmt.Errorf("read %q: %w", answer, err)
		}
		if !r.OK {
			return "", errors.New(r.Error)
		}
		return strings.TrimSpace(fmt.Sprint(r.Body)), nil
	case <-t.C:
		return "", fmt.Errorf("no answer within %s", patience)
	}
}
