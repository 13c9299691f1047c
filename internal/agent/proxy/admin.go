// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Admin is Envoy's admin interface.
type Admin struct {
	client *http.Client
	base   string
}

// NewAdmin reaches the interface at host:port or at a unix socket.
func NewAdmin(address string) *Admin {
	a := &Admin{client: &http.Client{}, base: "http://" + address}
	network := "tcp"
	if strings.HasPrefix(address, "/") || strings.HasPrefix(address, ".") {
		network, a.base = "unix", "http://admin"
	}
	a.client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}
	return a
}

// Stats returns counters and gauges whose names match the regular expression.
func (a *Admin) Stats(ctx context.Context, filter string) (map[string]int64, error) {
	body, err := a.do(ctx, http.MethodGet, "/stats?filter="+url.QueryEscape(filter))
	if err != nil {
		return nil, err
	}
	defer body.Close()
	out := map[string]int64{}
	s := bufio.NewScanner(body)
	for s.Scan() {
		name, text, ok := cutLast(s.Text(), ": ")
		if !ok {
			continue
		}
		if v, err := strconv.ParseInt(text, 10, 64); err == nil {
			out[name] = v
		}
	}
	return out, s.Err()
}

// Prometheus returns Envoy's metrics in Prometheus' text format. The caller
// closes it.
func (a *Admin) Prometheus(ctx context.Context) (io.ReadCloser, error) {
	return a.do(ctx, http.MethodGet, "/stats/prometheus")
}

// DrainListeners starts a graceful drain: connections are accepted until the drain
// ends, and told to go elsewhere.
func (a *Admin) DrainListeners(ctx context.Context) error {
	body, err := a.do(ctx, http.MethodPost, "/drain_listeners?graceful")
	if err != nil {
		return err
	}
	return body.Close()
}

func (a *Admin) do(ctx context.Context, method, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := a.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("envoy admin: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		_ = res.Body.Close()
		return nil, fmt.Errorf("envoy admin: %s %s: %s", method, path, res.Status)
	}
	return res.Body, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
