// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/test/netlab"
)

// shared is an entry of the root namespace: for everybody.
const shared = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: shared, namespace: isthmus-system}
spec:
  hosts: [shared.example.com]
  location: MESH_EXTERNAL
  resolution: DNS
  ports:
  - {number: 80, name: http, protocol: HTTP}
  - {number: 443, name: tls, protocol: TLS}
`

func TestTheEgressGatewayKnowsWhoMayCallWhom(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t, netlab.WithEgressGateway, netlab.WithRegistryOnly)
	gw, a := lab.EgressGateway(), lab.Pod("a")
	stranger := lab.Add(netlab.PodSpec{Name: "c", Namespace: "other"})
	api := lab.Host("api.example.com")
	lab.Host("shared.example.com")
	lab.Apply(entries)
	lab.Apply(shared)

	a.HTTP("http://api.example.com/").Until(from(gw))
	a.HTTP("https://api.example.com/", "--cacert", lab.OutsideCA()).Until(from(gw))
	line := a.TCP("api.example.com:9000").WantOK()
	if !strings.Contains(fmt.Sprint(line.Body), gw.IP.String()) {
		t.Errorf("TCP came from elsewhere: %v", line.Body)
	}
	gw.WantLog("spiffe://cluster.local/ns/default/sa/a")
	stranger.HTTP("http://shared.example.com/").Until(from(gw))
	stranger.HTTP("https://shared.example.com/", "--cacert", lab.OutsideCA()).Until(from(gw))

	before := strings.Count(api.AppLog(), "\n")
	stranger.HTTP("http://api.example.com/").Want(403)
	stranger.HTTP("https://api.example.com/", "--cacert", lab.OutsideCA()).WantRefused()
	stranger.TCP("api.example.com:9000").WantRefused()
	if after := strings.Count(api.AppLog(), "\n"); after != before {
		t.Errorf("the host saw %d connections of a caller who may not", after-before)
	}
}

func TestTheEgressGatewayOpensNamesNotMachines(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t, netlab.WithEgressGateway, netlab.WithRegistryOnly)
	gw, a := lab.EgressGateway(), lab.Pod("a")
	lab.Host("api.example.com", "other.example.net")
	lab.Apply(entries)
	lab.Apply(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: disguised}
spec:
  hosts: [unregistered.example.net]
  http:
  - match: [{uri: {prefix: /rewritten}}]
    rewrite: {authority: api.example.com}
    route: [{destination: {host: api.example.com, port: {number: 80}}}]
  - route: [{destination: {host: api.example.com, port: {number: 80}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: disguised-tls}
spec:
  hosts: [api.example.com]
  tls:
  - match: [{port: 443, sniHosts: [other.example.net]}]
    route: [{destination: {host: api.example.com, port: {number: 443}}}]
  - match: [{port: 443, sniHosts: [api.example.com]}]
    route: [{destination: {host: api.example.com, port: {number: 443}}}]
`)
	at := "--connect"
	a.HTTP("http://unregistered.example.net/rewritten", at, "192.0.2.1:80").Until(from(gw))
	a.HTTP("http://unregistered.example.net/", at, "192.0.2.1:80").Want(403)
	a.HTTP("https://api.example.com/", "--cacert", lab.OutsideCA()).Until(from(gw))
	a.HTTP("https://other.example.net/", "--cacert", lab.OutsideCA()).WantRefused()
	gw.WantLog("BlackHoleCluster", "other.example.net", "spiffe://cluster.local/ns/default/sa/a")
}

func TestPoliciesOfAHostMeanTheSameThroughTheGateway(t *testing.T) {
	t.Parallel()
	for name, with := range topologies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := netlab.New(t, with)
			a := lab.Pod("a")
			if name == "EgressGateway" {
				lab.EgressGateway()
			}
			api := lab.Host("api.example.com")
			lab.Apply(entries)
			lab.Apply(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: api}
spec:
  hosts: [api.example.com]
  http:
  - match: [{uri: {prefix: /slow}}]
    timeout: 500ms
    route: [{destination: {host: api.example.com}}]
  - retries: {attempts: 2, retryOn: 5xx}
    route: [{destination: {host: api.example.com}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api}
spec:
  host: api.example.com
  trafficPolicy:
    connectionPool: {tcp: {connectTimeout: 2s}, http: {maxRequestsPerConnection: 1}}
    outlierDetection: {consecutive5xxErrors: 100}
`)
			a.HTTP("http://api.example.com/ready").WantOK()
			a.HTTP("http://api.example.com/tries?status=503").Want(503)
			if n := strings.Count(api.AppLog(), "/tries"); n != 3 {
				t.Errorf("the host counted %d tries, want 3", n)
			}
			a.HTTP("http://api.example.com/slow?delay=5s").Want(504)
		})
	}
}

func TestAHostThatIsDownIsTriedAgainThroughTheGateway(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t, netlab.WithEgressGateway, netlab.WithRegistryOnly)
	gw, a := lab.EgressGateway(), lab.Pod("a")
	lab.Host("api.example.com")
	lab.Apply(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api}
spec:
  hosts: [api.example.com]
  location: MESH_EXTERNAL
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 81, name: http-closed, protocol: HTTP}]
`)
	a.HTTP("http://api.example.com/").Until(from(gw))
	r := a.HTTP("http://api.example.com:81/closed").Want(503)
	if v := r.Field("headers", "x-isthmus-failure"); v != "" {
		t.Errorf("the application is told %q", v)
	}
	gw.WantLogs(3, "/closed")
}

func TestTheGatewayOriginatesTLS(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t, netlab.WithEgressGateway, netlab.WithRegistryOnly)
	gw, a := lab.EgressGateway(), lab.Pod("a")
	lab.Host("api.example.com")
	root, err := os.ReadFile(lab.OutsideCA())
	if err != nil {
		t.Fatal(err)
	}
	lab.Apply(fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: outside}
data: {ca.crt: %s}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api}
spec:
  hosts: [api.example.com]
  location: MESH_EXTERNAL
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 443}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api}
spec:
  host: api.example.com
  trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE, credentialName: outside}}]}
`, base64.StdEncoding.EncodeToString(root)))
	r := a.HTTP("http://api.example.com/").Until(from(gw))
	if r.Field("sni") != "api.example.com" {
		t.Errorf("the host was greeted as %q", r.Field("sni"))
	}
}
