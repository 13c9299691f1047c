// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/test/netlab"
)

func TestAHostNameLeadsNowhereElse(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t, netlab.WithSidecarEgress, netlab.WithRegistryOnly)
	a := lab.Pod("a")
	db := lab.Add(netlab.PodSpec{Name: "db-0", App: "db", Labels: map[string]string{"role": "db"}})
	other := lab.Host("other.example.net")
	lab.Host("any.example.com")
	lab.Apply(`
apiVersion: v1
kind: Service
metadata: {name: peers}
spec: {clusterIP: None, selector: {role: db}, ports: [{name: http, port: 80, targetPort: 80}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: any}
spec: {hosts: [any.example.com], location: MESH_EXTERNAL, resolution: NONE, ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}]}
`)
	a.Ask("http://peers/").Via(db.IP.String() + ":80").WantOK()
	a.Ask("http://peers/").Via(other.IP.String() + ":80").Want(403)
	a.Ask("http://any.example.com/").Via(other.IP.String() + ":80").WantOK()
	a.Ask("https://any.example.com/").Via(other.IP.String()+":443").With("--cacert", lab.OutsideCA()).WantOK()
	if log := other.AppLog(); strings.Contains(log, "any.example.com") || strings.Contains(log, "peers") {
		t.Errorf("a host that nobody registered was called:\n%s", log)
	}
}
