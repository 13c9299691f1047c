// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/test/netlab"
)

// TestProbesPassWherePlaintextIsRefused asks as the kubelet does: from outside the
// mesh, in plaintext, by way of the agent.
func TestProbesPassWherePlaintextIsRefused(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t, netlab.WithStrict)
	b := lab.Add(netlab.PodSpec{Name: "b", Env: map[string]string{"ISTIO_KUBE_APP_PROBERS": `{
		"/app-health/app/livez": {"httpGet": {"path": "/live", "port": 80}},
		"/app-health/app/readyz": {"httpGet": {"path": "/?status=503", "port": 80}},
		"/app-health/app/startupz": {"tcpSocket": {"port": 9000}}
	}`}})
	kubelet := lab.Bare("kubelet")
	at := "http://" + b.IP.String()
	kubelet.Ask(at + "/live").WantRefused()
	kubelet.Ask(at + ":15020/app-health/app/livez").Want(200)
	kubelet.Ask(at + ":15020/app-health/app/readyz").Want(503)
	kubelet.Ask(at + ":15020/app-health/app/startupz").Want(200)
	kubelet.Ask(at + ":15021/healthz/ready").Want(200)
}

func TestMetricsAreMerged(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	a, b := lab.Pod("a"), lab.Pod("b")
	prometheus := lab.Bare("prometheus")
	a.Ask("http://b/").WantOK()
	for _, path := range []string{":15020/stats/prometheus", ":15090/stats/prometheus"} {
		r := prometheus.Ask("http://" + b.IP.String() + path).WantOK()
		if text := fmt.Sprint(r.Body); !strings.Contains(text, "envoy_server_state") {
			t.Errorf("%s: no metrics of Envoy in %.200s", path, text)
		}
	}
}

// TestExcludedTrafficGoesAroundTheProxy opens one port of one range.
func TestExcludedTrafficGoesAroundTheProxy(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t, netlab.WithRegistryOnly)
	lab.Host("other.example.net")
	a := lab.Add(netlab.PodSpec{Name: "a", Intercept: []string{"--exclude-outbound", "192.0.2.0/24:8080"}})
	a.Ask("http://other.example.net:8080/").WantOK()
	a.Ask("http://other.example.net/").WantRefused()
}

// TestAGatewayFinishesWhatItBegan ends a gateway while a request is under way.
func TestAGatewayFinishesWhatItBegan(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	gw := lab.IngressGateway()
	lab.Pod("b")
	client := lab.Host("client.example.net")
	lab.Apply(`
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ["*"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: ["*"]
  gateways: [shop]
  http: [{route: [{destination: {host: b, port: {number: 80}}}]}]
`)
	at := "http://" + gw.IP.String() + "/"
	client.Ask(at).WantOK()
	slow := client.Ask(at+"?delay=2s").With("--timeout", "8s").Start()
	gw.WantConnections(1)
	gw.Stop()
	if r := slow(); !r.OK {
		t.Errorf("the request under way failed: %d %s", r.Status, r.Error)
	}
}
