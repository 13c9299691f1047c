// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// Prober is a probe of the application as Kubernetes has it, of which exactly one
// action is set.
type Prober struct {
	HTTPGet   *HTTPGet   `json:"httpGet,omitempty"`
	TCPSocket *TCPSocket `json:"tcpSocket,omitempty"`
	GRPC      *GRPC      `json:"grpc,omitempty"`
	// TimeoutSeconds 0 means 1, as in Kubernetes.
	TimeoutSeconds int `json:"timeoutSeconds,omitempty"`
}

// HTTPGet asks for a path and wants a status from 200 to 399.
type HTTPGet struct {
	Path    string   `json:"path,omitempty"`
	Port    Port     `json:"port"`
	Scheme  string   `json:"scheme,omitempty"`
	Headers []Header `json:"httpHeaders,omitempty"`
}

// Header of a probe.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// TCPSocket wants a connection.
type TCPSocket struct {
	Port Port `json:"port"`
}

// GRPC asks the standard health service.
type GRPC struct {
	Port    Port    `json:"port"`
	Service *string `json:"service,omitempty"`
}

// Port is written as a number or as a string that is one.
type Port uint16

// UnmarshalJSON implements json.Unmarshaler.
func (p *Port) UnmarshalJSON(b []byte) error {
	n, err := strconv.ParseUint(strings.Trim(string(b), "\""), 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%s is no port", b)
	}
	*p = Port(n)
	return nil
}

// ParseProbers reads ISTIO_KUBE_APP_PROBERS: probers by path.
func ParseProbers(s string) (map[string]Prober, error) {
	if s == "" {
		return nil, nil
	}
	out := map[string]Prober{}
	if err := json.Unmarshal([]byte(s), &out); err != nil {
		return nil, fmt.Errorf("parse probers: %w", err)
	}
	for path, p := range out {
		if !strings.HasPrefix(path, "/app-health/") && !strings.HasPrefix(path, "/app-lifecycle/") {
			return nil, fmt.Errorf("prober %q: the path is not one of the application's", path)
		}
		if p.HTTPGet == nil && p.TCPSocket == nil && p.GRPC == nil {
			return nil, fmt.Errorf("prober %q: nothing to do", path)
		}
	}
	return out, nil
}

// prober answers the kubelet by asking the application. It asks from 127.0.0.6,
// which the redirect lets pass, at the pod's own address, where the kubelet would.
type prober struct {
	probers map[string]Prober
	dialer  net.Dialer
	to      string
	client  *http.Client
}

func newProber(probers map[string]Prober, from, to string) *prober {
	p := &prober{probers: probers, to: to}
	if ip := net.ParseIP(from); ip != nil {
		p.dialer.LocalAddr = &net.TCPAddr{IP: ip}
	}
	p.client = &http.Client{
		Transport: &http.Transport{
			DialContext:       p.dialer.DialContext,
			DisableKeepAlives: true,
			// The kubelet doesn't verify either.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
		},
		// As the kubelet: redirects within the host are followed, others are the answer.
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) >= 10 || req.URL.Hostname() != via[0].URL.Hostname() {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}
	return p
}

// ServeHTTP implements http.Handler.
func (p *prober) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	pr, ok := p.probers[r.URL.Path]
	if !ok {
		http.Error(w, "no such probe", http.StatusNotFound)
		return
	}
	timeout := time.Duration(max(pr.TimeoutSeconds, 1)) * time.Second
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	var err error
	code := http.StatusOK
	switch {
	case pr.HTTPGet != nil:
		code, err = p.http(ctx, pr.HTTPGet, r.Header)
	case pr.TCPSocket != nil:
		err = p.tcp(ctx, pr.TCPSocket.Port)
	default:
		err = p.grpc(ctx, pr.GRPC)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(code)
}

func (p *prober) address(port Port) string {
	return net.JoinHostPort(p.to, strconv.Itoa(int(port)))
}

func (p *prober) http(ctx context.Context, g *HTTPGet, kubelet http.Header) (int, error) {
	scheme := strings.ToLower(g.Scheme)
	if scheme == "" {
		scheme = "http"
	}
	u, err := url.Parse(scheme + "://" + p.address(g.Port) + "/" + strings.TrimPrefix(g.Path, "/"))
	if err != nil {
		return 0, fmt.Errorf("probe path: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return 0, err
	}
	for _, name := range []string{"User-Agent", "Accept"} {
		if v := kubelet.Get(name); v != "" {
			req.Header.Set(name, v)
		}
	}
	for _, h := range g.Headers {
		if strings.EqualFold(h.Name, "host") {
			req.Host = h.Value
			continue
		}
		req.Header.Add(h.Name, h.Value)
	}
	res, err := p.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("probe the application: %w", err)
	}
	return res.StatusCode, res.Body.Close()
}

func (p *prober) tcp(ctx context.Context, port Port) error {
	c, err := p.dialer.DialContext(ctx, "tcp", p.address(port))
	if err != nil {
		return fmt.Errorf("probe the application: %w", err)
	}
	return c.Close()
}

func (p *prober) grpc(ctx context.Context, g *GRPC) error {
	conn, err := grpc.NewClient("passthrough:///"+p.address(g.Port),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUserAgent("kube-probe"),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return p.dialer.DialContext(ctx, "tcp", addr)
		}))
	if err != nil {
		return fmt.Errorf("probe the application: %w", err)
	}
	defer conn.Close()
	req := &grpc_health_v1.HealthCheckRequest{}
	if g.Service != nil {
		req.Service = *g.Service
	}
	res, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, req)
	if err != nil {
		return fmt.Errorf("probe the application: %w", err)
	}
	if res.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("probe the application: it says %s", res.GetStatus())
	}
	return nil
}
