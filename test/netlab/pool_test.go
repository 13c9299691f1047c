// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/test/netlab"
)

// TestOneRequestWaits has a pool of one connection, which is taken, and room for one
// who waits for it. Other cases of pools are in connection-pools.yaml; this needs
// requests at the same time.
func TestOneRequestWaits(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	a := lab.Pod("a")
	lab.Pod("b")
	lab.Apply(`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b}
spec: {host: b, trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}}}
`)
	const full = "cluster.outbound|80||b.default.svc.cluster.local.circuit_breakers.default.rq_pending_open"
	a.WantGauge(full, 0)
	held := a.Hold("ws://b/ws")
	waiting := a.Ask("http://b/waits").With("--timeout", "60s").Start()
	a.WantGauge(full, 1)
	if h := lab.Hop(a.Ask("http://b/").Overflows().Want(503)); h.Flags != "UO" {
		t.Errorf("who came second was told %q, want UO", h.Flags)
	}
	held.Close()
	if r := waiting(); !r.OK {
		t.Errorf("who waited got %d %s", r.Status, r.Error)
	}
}

// TestOneRetryAtATime has a request that is tried over and over, and another one
// that would have to be tried again meanwhile.
func TestOneRetryAtATime(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	a := lab.Pod("a")
	lab.Pod("b")
	lab.Apply(`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b}
spec: {host: b, trafficPolicy: {connectionPool: {http: {maxRetries: 1}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b}
spec:
  hosts: [b]
  http:
  - match: [{uri: {prefix: /over-and-over}}]
    retries: {attempts: 600, retryOn: 5xx}
    route: [{destination: {host: b}}]
  - retries: {attempts: 2, retryOn: 5xx}
    route: [{destination: {host: b}}]
`)
	a.Ask("http://b/?fail=1").WantOK()
	const full = "cluster.outbound|80||b.default.svc.cluster.local.circuit_breakers.default.rq_retry_open"
	a.WantGauge(full, 0)
	a.Ask("http://b/over-and-over?status=503&delay=1s").With("--timeout", "600s").Start()
	a.WantGauge(full, 1)
	if h := lab.Hop(a.Ask("http://b/?fail=1").Overflows().Want(503)); h.Flags != "UO" {
		t.Errorf("who came second was told %q, want UO", h.Flags)
	}
}
