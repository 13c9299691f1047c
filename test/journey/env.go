// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package journey

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/test/kube"
)

// Namespaces of the cast.
const (
	Shop      = "shop"      // members of the mesh
	Strangers = "strangers" // not members
)

// Outside is the world beyond the cluster: hosts that log who came, and a
// client that comes from there.
type Outside interface {
	// Log returns what the named host logged since the moment.
	Log(ctx context.Context, host string, since time.Time) ([]Visit, error)
	// Call runs the test client outside the cluster.
	Call(ctx context.Context, args ...string) (Reply, error)
	// Scene says what manifests must know of it.
	Scene() Scene
}

// Visit is one line of an outside host's log.
type Visit struct {
	Time   time.Time `json:"time"`
	Kind   string    `json:"kind"`
	Remote string    `json:"remote"`
	Host   string    `json:"host"`
	Detail string    `json:"detail"`
	SNI    string    `json:"sni"`
}

// From is the address that the visitor came from, without its port.
func (v Visit) From() string {
	host, _, _ := cutLast(v.Remote, ":")
	return strings.Trim(host, "[]")
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// Reply is one line of the test client's output.
type Reply struct {
	OK     bool    `json:"ok"`
	Status int     `json:"status"`
	Error  string  `json:"error"`
	Millis float64 `json:"ms"`
	Body   any     `json:"body"`
}

// Field reads a string out of a JSON answer, by path.
func (r Reply) Field(path ...string) string {
	v := r.Body
	for _, p := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return ""
		}
		v = m[p]
	}
	s, _ := v.(string)
	return s
}

// Text is the answer of a line protocol.
func (r Reply) Text() string {
	s, _ := r.Body.(string)
	return s
}

func (r Reply) String() string {
	if r.Error != "" {
		return strings.TrimSpace(r.Error[strings.LastIndex(r.Error, ": ")+1:])
	}
	if r.Status != 0 {
		return fmt.Sprintf("HTTP %d", r.Status)
	}
	return "answered"
}

// Env is where flows happen.
type Env struct {
	Kube    *kube.Client
	Outside Outside
	// Ingress is the address of the ingress gateway as the outside sees it.
	Ingress string
	// Namespace of control plane and gateways.
	Namespace string

	root     string
	progress func(step string)
	calls    atomic.Int64
}

// Nonce names one call, so that logs can be searched for it.
func (e *Env) Nonce() string {
	return fmt.Sprintf("n%d-%d", time.Now().UnixMilli()%1_000_000, e.calls.Add(1))
}

// Pod finds the running pod of an app.
func (e *Env) Pod(ctx context.Context, namespace, app string) (*corev1.Pod, error) {
	return e.Kube.Pod(ctx, namespace, "app="+app)
}

// Call runs the test client in the app's container of an app's pod. An error
// means that it could not be run; that it was refused is in the Reply.
func (e *Env) Call(ctx context.Context, namespace, app string, args ...string) (Reply, error) {
	p, err := e.Pod(ctx, namespace, app)
	if err != nil {
		return Reply{}, err
	}
	out, err := e.Kube.Run(ctx, namespace, p.Name, "app", append([]string{"/usr/local/bin/testapp"}, patient(args)...)...)
	return parseReply(out, err)
}

// patient waits for an answer as long as a busy machine may take, unless the
// arguments say how long; a refusal is there at once.
func patient(args []string) []string {
	return append([]string{args[0], "--timeout", "30s"}, args[1:]...)
}

// parseReply takes the last line; the client's failing exit code is not an
// error here if it printed what it got.
func parseReply(out string, err error) (Reply, error) {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var r Reply
	if json.Unmarshal([]byte(lines[len(lines)-1]), &r) == nil {
		return r, nil
	}
	if err == nil {
		err = fmt.Errorf("no answer from the test client: %q", out)
	}
	return Reply{}, err
}

// ProxyLog finds the newest line with the text in the proxy's log of an app's pod.
func (e *Env) ProxyLog(ctx context.Context, namespace, app, text string, since time.Time) (string, error) {
	return e.proxyLog(ctx, namespace, "app="+app, text, since)
}

// egressGateway selects the egress gateway's pods.
const egressGateway = "isthmus.dev/gateway=egress"

// GatewayLog is ProxyLog for the egress gateway.
func (e *Env) GatewayLog(ctx context.Context, text string, since time.Time) (string, error) {
	return e.proxyLog(ctx, e.Namespace, egressGateway, text, since)
}

// proxyLog waits: proxies flush their logs every 100 ms.
func (e *Env) proxyLog(ctx context.Context, namespace, selector, text string, since time.Time) (string, error) {
	p, err := e.Kube.Pod(ctx, namespace, selector)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		all, err := e.Kube.Logs(ctx, namespace, p.Name, "istio-proxy", since)
		if err != nil {
			return "", err
		}
		lines := strings.Split(all, "\n")
		for i := len(lines) - 1; i >= 0; i-- {
			if strings.Contains(lines[i], text) {
				return lines[i], nil
			}
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("the proxy of %s/%s logged nothing with %q", namespace, p.Name, text)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Visits returns what the outside host logged since the moment and that ok accepts.
func (e *Env) Visits(ctx context.Context, host string, since time.Time, ok func(Visit) bool) ([]Visit, error) {
	all, err := e.Outside.Log(ctx, host, since)
	if err != nil {
		return nil, err
	}
	var out []Visit
	for _, v := range all {
		if ok(v) {
			out = append(out, v)
		}
	}
	return out, nil
}

// GatewayIPs are the addresses of the egress gateway's pods.
func (e *Env) GatewayIPs(ctx context.Context) (map[string]bool, error) {
	p, err := e.Kube.Pod(ctx, e.Namespace, egressGateway)
	if err != nil {
		return nil, err
	}
	ips := map[string]bool{}
	for _, ip := range p.Status.PodIPs {
		ips[ip.IP] = true
	}
	return ips, nil
}
