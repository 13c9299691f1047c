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

// spoken are requests in every protocol, to ports that declare it and to ports where
// it is found out.
func spoken() map[string]string {
	return map[string]string{
		"HTTP/1.1": "http://b/", "HTTP/1.1, detected": "http://b:7000/",
		"HTTP/2": "http2://b/", "HTTP/2, detected": "http2://b:7000/",
		"gRPC": "grpc://b:50051", "gRPC, detected": "grpc://b:7002",
		"WebSocket": "ws://b/ws", "WebSocket, detected": "ws://b:7000/ws",
		"TCP": "tcp://b:9000", "TCP, detected": "tcp://b:7001",
		"own TLS": "https://b/", "own TLS, detected": "https://b:7003/",
		"server first": "mysql://b:3306", "server first, detected": "mysql://b:7004",
	}
}

// TestEveryProtocolInEveryMode has callers with and without a proxy. Who speaks
// second is found out by its silence, which may take protocolDetectionTimeout.
func TestEveryProtocolInEveryMode(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"STRICT", "PERMISSIVE", "DISABLE"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			lab := netlab.New(t)
			lab.Mesh("protocolDetectionTimeout: 0.5s")
			a, b, plain := lab.Pod("a"), lab.Pod("b"), lab.Bare("plain")
			lab.Apply(fmt.Sprintf(`
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: %s}}
`, mode))
			for name, url := range spoken() {
				a.Ask(url).Named(name).With("--timeout", "30s").WantMutual(mode != "DISABLE")
				bare := plain.Ask(url).Named(name+", without a proxy").With("--timeout", "30s").At(b)
				if mode == "STRICT" {
					bare.WantRefused()
				} else {
					bare.WantMutual(false)
				}
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
