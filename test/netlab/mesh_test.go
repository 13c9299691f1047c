// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/test/netlab"
)

const spiffeA = "spiffe://cluster.local/ns/default/sa/a"

func TestTwoSidecarsSpeakMutualTLS(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	a, b := lab.Pod("a"), lab.Pod("b")

	r := a.Ask("http://b/hello").WantOK()
	if r.By() != "b" || r.Field("path") != "/hello" {
		t.Errorf("answer %v", r.Body)
	}
	if !strings.HasPrefix(r.Field("remote"), "127.0.0.6:") {
		t.Errorf("the application was called from %s, want its own proxy", r.Field("remote"))
	}
	b.WantLog(`"path":"/hello"`, spiffeA)
	if h := lab.Hop(r); h.Proxy != "a" || h.Cluster != "outbound|80||b.default.svc.cluster.local" || h.Upstream != b.IP.String()+":80" {
		t.Errorf("its first hop was %+v", h)
	}

	a.Ask("http://b.default.svc.cluster.local:8080/").WantOK()
	a.Ask("http2://b/h2").WantOK()
	a.Ask("grpc://b:50051").WantOK()
	a.Ask("ws://b/ws").WantOK()
	line := a.Ask("tcp://b:9000").With("--line", "over tcp").WantOK()
	if !strings.Contains(fmt.Sprint(line.Body), "over tcp") {
		t.Errorf("TCP answered %v", line.Body)
	}
	b.WantLogs(6, spiffeA)
}

// callsTo are one of each kind, on ports that say their protocol and on ports that
// do not.
func callsTo(lab *netlab.Lab, a *netlab.Pod) map[string]*netlab.Call {
	return map[string]*netlab.Call{
		"HTTP/1.1":            a.Ask("http://b/"),
		"HTTP/1.1, detected":  a.Ask("http://b:7000/"),
		"HTTP/2":              a.Ask("http2://b/"),
		"HTTP/2, detected":    a.Ask("http2://b:7000/"),
		"gRPC":                a.Ask("grpc://b:50051"),
		"gRPC, detected":      a.Ask("grpc://b:7002"),
		"WebSocket":           a.Ask("ws://b/ws"),
		"WebSocket, detected": a.Ask("ws://b:7000/ws"),
		"TCP":                 a.Ask("tcp://b:9000"),
		"TCP, detected":       a.Ask("tcp://b:7001"),
		"own TLS":             a.Ask("https://b/"),
		"own TLS, detected":   a.Ask("https://b:7003/"),
	}
}

func TestEveryProtocolInEveryMode(t *testing.T) {
	t.Parallel()
	for mode, mutual := range map[string]bool{"STRICT": true, "PERMISSIVE": true, "DISABLE": false} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			lab := netlab.New(t)
			a, b := lab.Pod("a"), lab.Pod("b")
			lab.Apply(fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: %s}}
`, mode))
			lab.Ready()
			for name, call := range callsTo(lab, a) {
				before := strings.Count(b.Log(), spiffeA)
				call.Named(name).WantOK()
				if mutual {
					b.WantLogs(before+1, spiffeA)
				}
			}
			if !mutual && strings.Contains(b.Log(), spiffeA) {
				t.Error("mutual TLS although it is off")
			}
		})
	}
}

func TestAPodCallsItsOwnService(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t, netlab.WithStrict)
	a := lab.Pod("a")
	a.Ask("http://a/self").WantOK()
	a.WantLog(`"path":"/self"`, spiffeA)
	a.Ask("http://127.0.0.1/").WantOK()
	a.Ask("http://" + a.IP.String() + "/").WantOK()
}

func TestPlaintextIsRefusedWhereMutualTLSIsAskedFor(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	a, b, plain := lab.Pod("a"), lab.Pod("b"), lab.Bare("plain")
	at := "http://" + b.IP.String() + "/"

	plain.Ask(at).WantOK() // permissive, the default
	a.Ask("http://plain/").WantOK()
	lab.Apply(`
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: STRICT}}
`)
	plain.Ask(at).WantRefused()
	plain.Ask("tcp://" + b.IP.String() + ":9000").WantRefused()
	plain.Ask("tcp://" + b.IP.String() + ":7001").WantRefused()
	a.Ask("http://b/").WantOK()
	a.Ask("http://plain/").WantOK() // who has no proxy is called in plaintext still

	lab.Delete("PeerAuthentication", "default", "default")
	plain.Ask(at).WantOK()
}
