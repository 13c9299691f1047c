// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// answer is what the HTTP and gRPC servers say of a request.
type answer struct {
	Name    string            `json:"name"`
	Host    string            `json:"host,omitempty"`
	Method  string            `json:"method,omitempty"`
	Path    string            `json:"path,omitempty"`
	Remote  string            `json:"remote"`
	Local   string            `json:"local,omitempty"`
	Proto   string            `json:"proto,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	SNI     string            `json:"sni,omitempty"`
	TLSPeer string            `json:"tlsPeer,omitempty"`
	Echo    string            `json:"echo,omitempty"`
}

// entry is one line of the log.
type entry struct {
	Time   string `json:"time"`
	Name   string `json:"name"`
	Kind   string `json:"kind"`
	Remote string `json:"remote"`
	Host   string `json:"host,omitempty"`
	Detail string `json:"detail,omitempty"`
	SNI    string `json:"sni,omitempty"`
}

// requestLog writes one JSON line per request.
type requestLog struct {
	name string
	mu   sync.Mutex
	enc  *json.Encoder
}

func newLog(name string, w io.Writer) *requestLog {
	return &requestLog{name: name, enc: json.NewEncoder(w)}
}

func (l *requestLog) add(e entry) {
	e.Time, e.Name = time.Now().UTC().Format(time.RFC3339Nano), l.name
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.enc.Encode(e)
}

// handler answers every path with what it saw. Query parameters steer it:
// status=503 answers that status, delay=2s waits first, fail=N answers 503 to the
// first N tries of a request, as its x-request-id tells.
func (s *server) handler(kind string) http.Handler {
	mux := http.NewServeMux()
	failures := &counter{seen: map[string]int{}}
	mux.HandleFunc("/ws", s.websocket)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		a := s.describe(r)
		s.log.add(entry{Kind: kind, Remote: r.RemoteAddr, Host: r.Host, Detail: r.Method + " " + r.URL.RequestURI(), SNI: a.SNI})
		if d, err := time.ParseDuration(r.URL.Query().Get("delay")); err == nil {
			select {
			case <-time.After(d):
			case <-r.Context().Done():
				return
			}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(failures.status(r))
		_ = json.NewEncoder(w).Encode(a)
	})
	return mux
}

func (s *server) describe(r *http.Request) answer {
	a := answer{Name: s.name, Host: r.Host, Method: r.Method, Path: r.URL.RequestURI(), Remote: r.RemoteAddr, Proto: r.Proto, Headers: map[string]string{}}
	if l, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		a.Local = l.String()
	}
	for k, v := range r.Header {
		a.Headers[strings.ToLower(k)] = strings.Join(v, ",")
	}
	if r.TLS != nil {
		a.SNI = r.TLS.ServerName
		if p := r.TLS.PeerCertificates; len(p) > 0 {
			a.TLSPeer = p[0].Subject.String()
			if len(p[0].URIs) > 0 {
				a.TLSPeer = p[0].URIs[0].String()
			}
		}
	}
	if b, err := io.ReadAll(io.LimitReader(r.Body, 1<<20)); err == nil {
		a.Echo = string(b)
	}
	return a
}

// counter counts tries of a request, for servers that are to fail a few times.
type counter struct {
	mu   sync.Mutex
	seen map[string]int
}

func (c *counter) status(r *http.Request) int {
	q := r.URL.Query()
	if n, err := strconv.Atoi(q.Get("fail")); err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		id := r.Header.Get("X-Request-Id")
		c.seen[id]++
		if c.seen[id] <= n {
			return http.StatusServiceUnavailable
		}
	}
	if n, err := strconv.Atoi(q.Get("status")); err == nil && n >= 200 && n < 600 {
		return n
	}
	return http.StatusOK
}

func (s *server) websocket(w http.ResponseWriter, r *http.Request) {
	s.log.add(entry{Kind: "websocket", Remote: r.RemoteAddr, Host: r.Host, Detail: r.URL.RequestURI()})
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }()
	for {
		t, b, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), t, fmt.Appendf(nil, "%s remote=%s %s", s.name, r.RemoteAddr, b)); err != nil {
			return
		}
	}
}

// tcp echoes lines; a server with a greeting speaks first.
func (s *server) tcp(addr, greeting string) (func(context.Context) error, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for TCP: %w", err)
	}
	return func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { _ = l.Close() })
		defer stop()
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("accept TCP: %w", err)
			}
			go s.echoLines(ctx, c, greeting)
		}
	}, nil
}

func (s *server) echoLines(ctx context.Context, c net.Conn, greeting string) {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	defer c.Close()
	s.log.add(entry{Kind: "tcp", Remote: c.RemoteAddr().String()})
	if greeting != "" {
		if _, err := fmt.Fprintln(c, greeting); err != nil {
			return
		}
	}
	in := bufio.NewScanner(c)
	for in.Scan() {
		if _, err := fmt.Fprintf(c, "%s remote=%s %s\n", s.name, c.RemoteAddr(), in.Text()); err != nil {
			return
		}
	}
}

func (s *server) udp(addr string) (func(context.Context) error, error) {
	p, err := net.ListenPacket("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for UDP: %w", err)
	}
	return func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { _ = p.Close() })
		defer stop()
		buf := make([]byte, 64<<10)
		for {
			n, from, err := p.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("read UDP: %w", err)
			}
			s.log.add(entry{Kind: "udp", Remote: from.String(), Detail: string(buf[:n])})
			if _, err := p.WriteTo(fmt.Appendf(nil, "%s remote=%s %s", s.name, from, buf[:n]), from); err != nil {
				continue
			}
		}
	}, nil
}
