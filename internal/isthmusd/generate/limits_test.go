// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ingest"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

const (
	routedService = `
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - headers: {request: {set: {":path": /x, authority: other, x-kept: a}, remove: [Host, ":method", x-gone]}, response: {set: {host: other}, remove: [":status"]}}
    route: [{destination: {host: web}}]
`
	originated = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: shop}
spec: {hosts: [api.example.com], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api, namespace: shop}
spec: {host: api.example.com, trafficPolicy: {tls: {mode: SIMPLE, OPTIONS}}}
`
	headless = `
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop}, spec: {clusterIP: None, selector: {app: db, tier: back}, ports: [{name: tcp, port: 5432}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, namespace: shop, labels: {app: db, tier: back}}
spec: {containers: [{name: istio-proxy}]}
status: {phase: Running, podIP: 10.0.0.9}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: db, namespace: shop}
spec: {selector: {matchLabels: {app: db}}, mtls: {mode: MODE}}
`
	sharedGateway = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: isthmus-system}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 8443, name: tls, protocol: TLS}, tls: {mode: PASSTHROUGH}, hosts: [shop/shop.example.com, bank/bank.example.com]}
  - {port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*/*"]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: self, namespace: shop}
spec:
  hosts: [self.example.com]
  resolution: STATIC
  endpoints: [{address: 127.0.0.1}, {address: "::1"}, {address: 169.254.169.254}, {address: 192.0.2.1}]
  ports: [{number: 15020, name: http, protocol: HTTP}]
---
{apiVersion: v1, kind: Service, metadata: {name: alias, namespace: shop}, spec: {type: ExternalName, externalName: LOCALHOST., ports: [{name: http, port: 15020}]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: shop}
spec:
  hosts: [shop.example.com]
  gateways: [isthmus-system/edge]
  http:
  - match: [{uri: {prefix: /self}}]
    route: [{destination: {host: self.example.com}}]
  - route: [{destination: {host: alias}}]
  tls:
  - match: [{sniHosts: [Shop.example.com, bank.example.com]}]
    route: [{destination: {host: self.example.com, port: {number: 15020}}}]
`
)

func shopSidecar() *model.Proxy {
	return &model.Proxy{ID: "s", Type: "sidecar", Namespace: "shop", Name: "s", IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
}

func edgeGateway() *model.Proxy {
	return &model.Proxy{
		ID: "g", Type: "router", Namespace: "isthmus-system", Name: "g",
		Labels: map[string]string{"istio": "ingressgateway"}, IPs: []netip.Addr{netip.MustParseAddr("10.0.0.2")},
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		docs   string
		proxy  *model.Proxy
		kind   resource.Type
		name   string
		has    []string
		hasNot []string
	}{
		"a header that Envoy keeps for itself is left alone": {
			docs: routedService, proxy: shopSidecar(), kind: resource.Route, name: "80",
			has: []string{`"x-gone"`, `"x-kept"`, `"hostRewriteLiteral":"other"`}, hasNot: []string{`":path"`, `"Host"`, `":method"`, `":status"`, `"host"`},
		},
		"a certificate must be for the host": {
			docs: strings.ReplaceAll(originated, ", OPTIONS", ""), proxy: shopSidecar(),
			kind: resource.Cluster, name: "outbound|80||api.example.com", has: []string{`"autoSanValidation":true`},
		},
		"a certificate that nobody verifies may be for any host": {
			docs: strings.ReplaceAll(originated, "OPTIONS", "insecureSkipVerify: true"), proxy: shopSidecar(),
			kind: resource.Cluster, name: "outbound|80||api.example.com", has: []string{`"autoSni":true`}, hasNot: []string{"autoSanValidation"},
		},
		"names that are given replace the host": {
			docs: strings.ReplaceAll(originated, "OPTIONS", "subjectAltNames: [inside.example.com]"), proxy: shopSidecar(),
			kind: resource.Cluster, name: "outbound|80||api.example.com", has: []string{"inside.example.com"}, hasNot: []string{"autoSanValidation"},
		},
		"a headless service is called by mesh TLS": {
			docs: strings.ReplaceAll(headless, "MODE", "STRICT"), proxy: shopSidecar(),
			kind: resource.Cluster, name: "outbound|5432||db.shop.svc.cluster.local", has: []string{"transportSocket"},
		},
		"not where its workloads have turned that off": {
			docs: strings.ReplaceAll(headless, "MODE", "DISABLE"), proxy: shopSidecar(),
			kind: resource.Cluster, name: "outbound|5432||db.shop.svc.cluster.local", hasNot: []string{"transportSocket"},
		},
		"a server name of another namespace is not to be had": {
			docs: sharedGateway, proxy: edgeGateway(), kind: resource.Listener, name: "0.0.0.0_8443",
			has: []string{"shop.example.com"}, hasNot: []string{"bank.example.com"},
		},
		"a tenant cannot lead a gateway to itself": {
			docs: sharedGateway, proxy: edgeGateway(), kind: resource.Endpoint, name: "outbound|15020||self.example.com",
			has: []string{"192.0.2.1"}, hasNot: []string{"127.0.0.1", "::1", "169.254"},
		},
		"nor by a name for it": {
			docs: sharedGateway, proxy: edgeGateway(), kind: resource.Cluster, name: "outbound|15020||alias.shop.svc.cluster.local",
			hasNot: []string{"LOCALHOST"},
		},
		"a sidecar may be led to its own pod": {
			docs: sharedGateway, proxy: shopSidecar(), kind: resource.Endpoint, name: "outbound|15020||self.example.com",
			has: []string{"127.0.0.1"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			snap, err := ingest.Load([]byte(tc.docs), topology.Config{})
			if err != nil {
				t.Fatal(err)
			}
			m := generateAll(t, snap, tc.proxy)[tc.kind][tc.name]
			if m == nil {
				t.Fatalf("there is no %s", tc.name)
			}
			raw, err := protojson.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			// protojson puts blanks at random.
			got := strings.ReplaceAll(string(raw), " ", "")
			for _, s := range tc.has {
				if !strings.Contains(got, s) {
					t.Errorf("lacks %s: %s", s, got)
				}
			}
			for _, s := range tc.hasNot {
				if strings.Contains(got, s) {
					t.Errorf("has %s: %s", s, got)
				}
			}
		})
	}
}
