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

	r := a.HTTP("http://b/hello").WantOK()
	if r.Field("name") != "b" || r.Field("path") != "/hello" {
		t.Errorf("answer %v", r.Body)
	}
	if !strings.HasPrefix(r.Field("remote"), "127.0.0.6:") {
		t.Errorf("the application was called from %s, want its own proxy", r.Field("remote"))
	}
	b.WantLog(`"path":"/hello"`, spiffeA)

	a.HTTP("http://b.default.svc.cluster.local:8080/").WantOK()
	a.HTTP("http://b/h2", "--http2").WantOK()
	a.GRPC("b:50051").WantOK()
	a.WS("ws://b/ws").WantOK()
	line := a.TCP("b:9000", "--line", "over tcp").WantOK()
	if !strings.Contains(fmt.Sprint(line.Body), "over tcp") {
		t.Errorf("TCP answered %v", line.Body)
	}
	b.WantLogs(6, spiffeA)
}

// callsTo are one of each kind, on ports that say their protocol and on ports that
// do not.
func callsTo(lab *netlab.Lab, a *netlab.Pod) map[string]*netlab.Call {
	ca := lab.OutsideCA()
	return map[string]*netlab.Call{
		"HTTP/1.1":            a.HTTP("http://b/"),
		"HTTP/1.1, detected":  a.HTTP("http://b:7000/"),
		"HTTP/2":              a.HTTP("http://b/", "--http2"),
		"HTTP/2, detected":    a.HTTP("http://b:7000/", "--http2"),
		"gRPC":                a.GRPC("b:50051"),
		"gRPC, detected":      a.GRPC("b:7002"),
		"WebSocket":           a.WS("ws://b/ws"),
		"WebSocket, detected": a.WS("ws://b:7000/ws"),
		"TCP":                 a.TCP("b:9000"),
		"TCP, detected":       a.TCP("b:7001"),
		"own TLS":             a.HTTP("https://b/", "--cacert", ca),
		"own TLS, detected":   a.HTTP("https://b:7003/", "--cacert", ca),
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
	a.HTTP("http://a/self").WantOK()
	a.WantLog(`"path":"/self"`, spiffeA)
	a.HTTP("http://127.0.0.1/").WantOK()
	a.HTTP("http://" + a.IP.String() + "/").WantOK()
}

func TestPlaintextIsRefusedWhereMutualTLSIsAskedFor(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	a, b, plain := lab.Pod("a"), lab.Pod("b"), lab.Bare("plain")
	at := "http://" + b.IP.String() + "/"

	plain.HTTP(at).WantOK() // permissive, the default
	a.HTTP("http://plain/").WantOK()
	lab.Apply(`
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: STRICT}}
`)
	plain.HTTP(at).WantRefused()
	plain.TCP(b.IP.String() + ":9000").WantRefused()
	plain.TCP(b.IP.String() + ":7001").WantRefused()
	a.HTTP("http://b/").WantOK()
	a.HTTP("http://plain/").WantOK() // who has no proxy is called in plaintext still

	lab.Delete("PeerAuthentication", "default", "default")
	plain.HTTP(at).WantOK()
}
