// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/test/netlab"
)

// TestNearPodsAreCalledFirst has a pod in each of three zones of two regions.
func TestNearPodsAreCalledFirst(t *testing.T) {
	t.Parallel()
	const far = 30 * time.Millisecond
	lab := netlab.New(t)
	lab.Zone("eu/one")
	lab.Zone("eu/two", netlab.WithDelay(far/3))
	lab.Zone("us/one", netlab.WithDelay(far))
	a := lab.Add(netlab.PodSpec{Name: "a", Zone: "eu/one"})
	pods := map[string]*netlab.Pod{}
	for name, zone := range map[string]string{"b-near": "eu/one", "b-next": "eu/two", "b-far": "us/one"} {
		pods[name] = lab.Add(netlab.PodSpec{Name: name, App: "b", Zone: zone})
	}
	lab.Apply(`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b}
spec: {host: b, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1, baseEjectionTime: 1h, maxEjectionPercent: 100}}}
`)
	call := a.Ask("http://b/")
	call.WantAmong("b-near")
	pods["b-near"].Crash()
	call.WantAmong("b-next")
	pods["b-next"].Crash()
	call.WantAmong("b-far")
	if r := call.WantOK(); r.Millis < float64(far.Milliseconds()) {
		t.Errorf("answered across the ocean after %.1f ms, want %s at the least", r.Millis, far)
	}
}

func TestShareOfEachZone(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	lossy := lab.Zone("eu/one", netlab.WithLoss(0.05))
	lab.Zone("us/one")
	a := lab.Add(netlab.PodSpec{Name: "a", Zone: "eu/one"})
	lab.Add(netlab.PodSpec{Name: "b-near", App: "b", Zone: "eu/one"})
	lab.Add(netlab.PodSpec{Name: "b-far", App: "b", Zone: "us/one"})
	lab.Apply(`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b}
spec:
  host: b
  trafficPolicy:
    loadBalancer: {localityLbSetting: {distribute: [{from: "eu/*", to: {"us/*": 100}}]}}
`)
	a.Ask("http://b/").WantAmong("b-far")
	// What is lost on the way is sent again: nobody above TCP hears of it.
	for lossy.Dropped() == 0 {
		wantAllOK(t, a.Ask("http://b/").Times(40))
	}
}
