// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/test/netlab"
)

func TestAHeadlessServiceGrowsWithoutCuttingConnections(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t, netlab.WithStrict, netlab.WithRegistryOnly)
	a, b := lab.Pod("a"), lab.Add(netlab.PodSpec{Name: "db-0", App: "db", Labels: map[string]string{"role": "db"}})
	lab.Apply(`
apiVersion: v1
kind: Service
metadata: {name: peers}
spec: {clusterIP: None, selector: {role: db}, ports: [{name: tcp, port: 9100, targetPort: 9000}]}
`)
	lab.Apply(`
apiVersion: v1
kind: Service
metadata: {name: same-port}
spec: {clusterIP: None, selector: {role: db}, ports: [{name: tcp, port: 9000}]}
`)
	a.Ask("tcp://" + b.IP.String() + ":9000").WantOK()
	second := lab.Add(netlab.PodSpec{Name: "db-1", App: "db", Labels: map[string]string{"role": "db"}})
	a.Ask("tcp://" + second.IP.String() + ":9000").WantOK()
	stats, err := a.Admin("/stats?filter=listener_manager")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"total_filter_chains_draining: 0", "total_listeners_draining: 0"} {
		if !strings.Contains(string(stats), want) {
			t.Errorf("want %s in:\n%s", want, stats)
		}
	}
}
