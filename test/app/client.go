// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"
)

// result is one line of the client's output.
type result struct {
	OK     bool    `json:"ok"`
	Status int     `json:"status,omitempty"`
	Error  string  `json:"error,omitempty"`
	Millis float64 `json:"ms"`
	Body   any     `json:"body,omitempty"`
	// Local and Remote are the ends of the connection.
	Local  string `json:"local,omitempty"`
	Remote string `json:"remote,omitempty"`
}

// clientOptions are common to the client verbs.
type clientOptions struct {
	timeout, interval time.Duration
	count             int
	line, host        string
	headers           []string
	connect, cacert   string
	sni               string
	cert, key         string
	insecure, http2   bool
	greeted           bool
}

// attempt is one request, and knows the connection that was made for it.
type attempt struct {
	*clientOptions
	target string
	mu     sync.Mutex // libraries dial from goroutines of their own
	ends   [2]string
}

// clientCommand makes a verb that does one thing count times and prints a line for each.
func clientCommand(use, short string, once func(context.Context, *attempt) result) *cobra.Command {
	o := &clientOptions{}
	c := &cobra.Command{Use: use, Short: short, Args: cobra.MinimumNArgs(1), RunE: func(c *cobra.Command, args []string) error {
		return repeat(c.Context(), o, args, once)
	}}
	f := c.Flags()
	f.DurationVar(&o.timeout, "timeout", 3*time.Second, "time limit of one request")
	f.DurationVar(&o.interval, "interval", 0, "pause between requests")
	f.IntVar(&o.count, "count", 1, "number of requests to each target")
	f.StringVar(&o.line, "line", "hello", "text to send")
	f.StringVar(&o.host, "host", "", "Host header or authority, if not the target's")
	f.StringVar(&o.sni, "sni", "", "server name in TLS, if not the host")
	f.StringArrayVar(&o.headers, "header", nil, "header as 'name: value'")
	f.StringVar(&o.connect, "connect", "", "address to dial instead of the target's")
	f.StringVar(&o.cacert, "cacert", "", "file of certificates to trust")
	f.StringVar(&o.cert, "cert", "", "file of a client certificate")
	f.StringVar(&o.key, "key", "", "file of its key")
	f.BoolVar(&o.insecure, "insecure", false, "do not verify the server's certificate")
	f.BoolVar(&o.greeted, "greeted", false, "TCP: the server speaks first; say nothing before it has")
	f.BoolVar(&o.http2, "http2", false, "HTTP/2, with prior knowledge when in the clear")
	return c
}

var errFailed = errors.New("a request failed")

func repeat(ctx context.Context, o *clientOptions, targets []string, once func(context.Context, *attempt) result) error {
	enc := json.NewEncoder(os.Stdout)
	var failed error
	for i := range o.count {
		if i > 0 && o.interval > 0 {
			time.Sleep(o.interval)
		}
		for _, t := range targets {
			c, cancel := context.WithTimeout(ctx, o.timeout)
			start := time.Now()
			a := &attempt{clientOptions: o, target: t}
			r := once(c, a)
			cancel()
			a.mu.Lock()
			r.Local, r.Remote = a.ends[0], a.ends[1]
			a.mu.Unlock()
			r.Millis = float64(time.Since(start).Microseconds()) / 1000
			if !r.OK {
				failed = errFailed
			}
			if err := enc.Encode(r); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return failed
}

func failure(err error) result { return result{Error: err.Error()} }

func httpCommand() *cobra.Command {
	return clientCommand("http URL...", "GET each URL", func(ctx context.Context, a *attempt) result {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.target, nil)
		if err != nil {
			return failure(err)
		}
		req.Host = a.host
		req.Header = a.header()
		rt, err := a.transport(strings.HasPrefix(a.target, "https:"))
		if err != nil {
			return failure(err)
		}
		res, err := rt.RoundTrip(req)
		if err != nil {
			return failure(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			return failure(err)
		}
		return result{OK: res.StatusCode < 400, Status: res.StatusCode, Body: jsonOrText(b)}
	})
}

func (a *attempt) header() http.Header {
	h := http.Header{}
	for _, line := range a.headers {
		k, v, _ := strings.Cut(line, ":")
		h.Add(strings.TrimSpace(k), strings.TrimSpace(v))
	}
	return h
}

// dial connects, and remembers the ends of the connection.
func (a *attempt) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if a.connect != "" {
		addr = a.connect
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err == nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.ends = [2]string{c.LocalAddr().String(), c.RemoteAddr().String()}
	}
	return c, err
}

// transport makes a new connection for every request, as a new client would.
func (a *attempt) transport(secure bool) (http.RoundTripper, error) {
	conf, err := a.tls()
	if err != nil {
		return nil, err
	}
	t := &http.Transport{DialContext: a.dial, TLSClientConfig: conf, DisableKeepAlives: !a.http2, ForceAttemptHTTP2: a.http2}
	if a.http2 && !secure {
		t.Protocols = new(http.Protocols)
		t.Protocols.SetUnencryptedHTTP2(true)
	}
	return t, nil
}

func (o *clientOptions) tls() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: o.insecure} //nolint:gosec // asked for by a flag of a test client
	c.ServerName = cmp.Or(o.sni, o.host)
	if o.cert != "" {
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return nil, fmt.Errorf("load --cert and --key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	if o.cacert == "" {
		return c, nil
	}
	b, err := os.ReadFile(o.cacert)
	if err != nil {
		return nil, fmt.Errorf("read --cacert: %w", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("no certificate in %s", o.cacert)
	}
	return c, nil
}

func jsonOrText(b []byte) any {
	var v any
	if json.Unmarshal(b, &v) == nil {
		return v
	}
	return string(b)
}

func tcpCommand() *cobra.Command { return lineCommand("tcp") }
func udpCommand() *cobra.Command { return lineCommand("udp") }

// lineCommand sends a line and wants one back: a connection alone proves
// nothing, as a proxy accepts it before it has reached anybody.
func lineCommand(network string) *cobra.Command {
	return clientCommand(network+" HOST:PORT...", "send a line by "+network+" and wait for the answer", func(ctx context.Context, a *attempt) result {
		c, err := a.dial(ctx, network, a.target)
		if err != nil {
			return failure(err)
		}
		defer c.Close()
		if d, ok := ctx.Deadline(); ok {
			_ = c.SetDeadline(d)
		}
		in := bufio.NewReader(c)
		if a.greeted {
			if _, err := in.ReadString('\n'); err != nil {
				return failure(err)
			}
		}
		if _, err := io.WriteString(c, a.line+"\n"); err != nil {
			return failure(err)
		}
		got, err := in.ReadString('\n')
		if err != nil {
			return failure(err)
		}
		return result{OK: true, Body: strings.TrimSpace(got)}
	})
}

func (a *attempt) grpc() (*grpc.ClientConn, error) {
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return a.dial(ctx, "tcp", addr) }),
	}
	if a.host != "" {
		opts = append(opts, grpc.WithAuthority(a.host))
	}
	return grpc.NewClient("passthrough:///"+a.target, opts...)
}

func grpcCommand() *cobra.Command {
	return clientCommand("grpc HOST:PORT...", "call the echo service", func(ctx context.Context, a *attempt) result {
		c, err := a.grpc()
		if err != nil {
			return failure(err)
		}
		defer c.Close()
		in := &structpb.Struct{Fields: map[string]*structpb.Value{"line": structpb.NewStringValue(a.line)}}
		out := &structpb.Struct{}
		for k, v := range a.header() {
			ctx = metadata.AppendToOutgoingContext(ctx, k, v[0])
		}
		if err := c.Invoke(ctx, echoMethod, in, out); err != nil {
			return failure(err)
		}
		return result{OK: true, Body: out.AsMap()}
	})
}

func (a *attempt) websocket(ctx context.Context) (*websocket.Conn, error) {
	t, err := a.transport(strings.HasPrefix(a.target, "wss:"))
	if err != nil {
		return nil, err
	}
	o := &websocket.DialOptions{Host: a.host, HTTPHeader: a.header(), HTTPClient: &http.Client{Transport: t}}
	c, _, err := websocket.Dial(ctx, a.target, o) //nolint:bodyclose // the library closes it
	return c, err
}

func wsCommand() *cobra.Command {
	return clientCommand("ws URL...", "echo a line over a WebSocket", func(ctx context.Context, a *attempt) result {
		c, err := a.websocket(ctx)
		if err != nil {
			return failure(err)
		}
		defer func() { _ = c.CloseNow() }()
		if err := c.Write(ctx, websocket.MessageText, []byte(a.line)); err != nil {
			return failure(err)
		}
		_, b, err := c.Read(ctx)
		if err != nil {
			return failure(err)
		}
		return result{OK: true, Body: string(b)}
	})
}
