// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/test/netlab"
)

// TestConnectionsOutliveTheirCertificates renews those of both ends under load, with a
// handshake for each request, and while streams are open. What was connected with
// certificates that have ended since goes on, and what connects shows new ones.
func TestConnectionsOutliveTheirCertificates(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t, netlab.WithStrict)
	brief := map[string]string{"SECRET_TTL": "16s"}
	a, b := lab.Add(netlab.PodSpec{Name: "a", Env: brief}), lab.Add(netlab.PodSpec{Name: "b", Env: brief})
	lab.Apply(`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b}
spec:
  host: b
  trafficPolicy: {portLevelSettings: [{port: {number: 8080}, connectionPool: {http: {maxRequestsPerConnection: 1}}}]}
`)
	a.Ask("http://b:8080/").WantOK()
	streams := map[string]*netlab.Line{}
	for _, url := range []string{"tcp://b:9000", "grpc://b:50051", "ws://b/ws"} {
		streams[url] = a.Hold(url)
	}
	stop, flood := a.Ask("http://b:8080/").Load(), a.Flood("http://b:8080/")
	for range 2 {
		lab.OutliveCertificates(a, b)
		for url, s := range streams {
			if _, err := s.Echo("still there"); err != nil {
				t.Errorf("%s did not outlive its certificates: %v", url, err)
			}
		}
		a.Ask("tcp://b:9000").WantMutual(true)
		a.Ask("http://b:8080/").WantMutual(true)
	}
	wantAllOK(t, stop())
	if err := flood().Err(); err != nil {
		t.Error(err)
	}
}
