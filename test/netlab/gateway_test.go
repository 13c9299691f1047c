// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"encoding/base64"
	"fmt"
	"testing"

	"github.com/isthmus-mesh/isthmus/test/netlab"
)

func TestIngressGateway(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t, netlab.WithStrict)
	gw, b := lab.IngressGateway(), lab.Pod("b")
	client := lab.Host("client.example.net")
	cert, key := lab.Certificate("shop.example.com")
	lab.Apply(fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: shop-tls, namespace: isthmus-system}
type: kubernetes.io/tls
data: {tls.crt: %s, tls.key: %s}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [shop.example.com]
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [shop.example.com]
    tls: {mode: SIMPLE, credentialName: shop-tls}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: [shop.example.com]
  gateways: [shop]
  http:
  - match: [{uri: {prefix: /api}}]
    rewrite: {uri: /}
    route: [{destination: {host: b, port: {number: 80}}}]
`, base64.StdEncoding.EncodeToString(cert), base64.StdEncoding.EncodeToString(key)))

	at := gw.IP.String()
	r := client.Ask("http://shop.example.com/api").Via(at + ":80").WantOK()
	if r.By() != "b" {
		t.Errorf("answer %v", r.Body)
	}
	b.WantLog("spiffe://cluster.local/ns/isthmus-system/sa/public-default")
	client.Ask("http://shop.example.com/other").Via(at + ":80").Want(404)
	client.Ask("http://unknown.example.com/api").Via(at + ":80").Want(404)
	r = client.Ask("https://shop.example.com/api").Via(at + ":443").WantOK()
	if r.By() != "b" {
		t.Errorf("answer over TLS %v", r.Body)
	}
	client.Ask("https://unknown.example.com/api").Via(at + ":443").With("--insecure").WantRefused()
}

func TestGatewaysOfEveryTLSMode(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	gw := lab.IngressGateway()
	lab.Pod("b")
	client := lab.Host("client.example.net")
	cert, key := lab.Certificate("mutual.example.com")
	lab.Apply(fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: mutual, namespace: isthmus-system}
data: {tls.crt: %[1]s, tls.key: %[2]s, ca.crt: %[3]s}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ["mutual.example.com"]
    tls: {httpsRedirect: true}
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: ["mutual.example.com"]
    tls: {mode: MUTUAL, credentialName: mutual}
  - port: {number: 443, name: tls, protocol: TLS}
    hosts: ["b.default"]
    tls: {mode: PASSTHROUGH}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: ["mutual.example.com", "b.default"]
  gateways: [shop]
  http: [{route: [{destination: {host: b, port: {number: 80}}}]}]
  tls:
  - match: [{sniHosts: ["b.default"]}]
    route: [{destination: {host: b, port: {number: 443}}}]
`, base64.StdEncoding.EncodeToString(cert), base64.StdEncoding.EncodeToString(key), base64.StdEncoding.EncodeToString(lab.OutsideRoot())))
	at := gw.IP.String()
	client.Ask("http://mutual.example.com/").Via(at + ":80").Want(301)
	r := client.Ask("https://b.default/").Via(at + ":443").WantOK()
	if r.Field("sni") != "b.default" {
		t.Errorf("passed through as %q", r.Field("sni"))
	}
	client.Ask("https://mutual.example.com/").Via(at + ":443").WantRefused()
}
