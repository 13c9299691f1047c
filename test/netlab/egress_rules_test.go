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

	a.Ask("http://api.example.com/").Until(gw.CheckCalled)
	a.Ask("https://api.example.com/").Until(gw.CheckCalled)
	a.Ask("tcp://api.example.com:9000").Until(gw.CheckCalled)
	gw.WantLog("spiffe://cluster.local/ns/default/sa/a")
	stranger.Ask("http://shared.example.com/").Until(gw.CheckCalled)
	stranger.Ask("https://shared.example.com/").Until(gw.CheckCalled)

	before := strings.Count(api.AppLog(), "\n")
	stranger.Ask("http://api.example.com/").Want(502)
	stranger.Ask("https://api.example.com/").With("--cacert", lab.OutsideCA()).WantRefused()
	stranger.Ask("tcp://api.example.com:9000").WantRefused()
	// Its sidecar can be told to ask the gateway all the same.
	lab.Apply(forged(gw.IP.String(), 80, "HTTP", "api.example.com"))
	lab.Apply(forged(gw.IP.String(), 9000, "TCP", "api.example.com"))
	stranger.Ask("http://forged-80.internal/").Via("192.0.2.80:80").Want(403)
	gw.WantLog("rbac_access_denied")
	stranger.Ask("tcp://api.example.com:9000").Via("192.0.2.80:9000").WantRefused()
	if after := strings.Count(api.AppLog(), "\n"); after != before {
		t.Errorf("the host saw %d connections of a caller who may not", after-before)
	}
}

// forged is an entry of namespace other that leads to a key of another namespace's host.
func forged(gateway string, port int, protocol, host string) string {
	return fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: forged-%[2]d, namespace: other}
spec:
  hosts: [forged-%[2]d.internal]
  addresses: [192.0.2.80]
  location: MESH_INTERNAL
  resolution: STATIC
  endpoints: [{address: %[1]s}]
  ports: [{number: %[2]d, name: p, protocol: %[3]s, targetPort: 15443}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: forged-%[2]d, namespace: other}
spec:
  host: forged-%[2]d.internal
  trafficPolicy:
    tls: {mode: ISTIO_MUTUAL, sni: outbound_.%[2]d_._.%[4]s, subjectAltNames: ["spiffe://cluster.local/ns/isthmus-system/sa/egress-default"]}
`, gateway, port, protocol, host)
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
	a.Ask("http://unregistered.example.net/rewritten").Via("192.0.2.1:80").Until(gw.CheckCalled)
	a.Ask("http://unregistered.example.net/").Via("192.0.2.1:80").Want(403)
	a.Ask("https://api.example.com/").Until(gw.CheckCalled)
	a.Ask("https://other.example.net/").WantRefused()
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
			a.Ask("http://api.example.com/ready").WantOK()
			a.Ask("http://api.example.com/tries?status=503").Want(503)
			if n := strings.Count(api.AppLog(), "/tries"); n != 3 {
				t.Errorf("the host counted %d tries, want 3", n)
			}
			a.Ask("http://api.example.com/slow?delay=5s").Want(504)
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
	a.Ask("http://api.example.com/").Until(gw.CheckCalled)
	r := a.Ask("http://api.example.com:81/closed").Want(503)
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
	r := a.Ask("http://api.example.com/").Until(gw.CheckCalled)
	if r.Field("sni") != "api.example.com" {
		t.Errorf("the host was greeted as %q", r.Field("sni"))
	}
}
