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
	r := client.HTTP("http://shop.example.com/api", "--connect", at+":80").WantOK()
	if r.Field("name") != "b" {
		t.Errorf("answer %v", r.Body)
	}
	b.WantLog("spiffe://cluster.local/ns/isthmus-system/sa/public-default")
	client.HTTP("http://shop.example.com/other", "--connect", at+":80").Want(404)
	client.HTTP("http://unknown.example.com/api", "--connect", at+":80").Want(404)
	r = client.HTTP("https://shop.example.com/api", "--connect", at+":443", "--cacert", lab.OutsideCA()).WantOK()
	if r.Field("name") != "b" {
		t.Errorf("answer over TLS %v", r.Body)
	}
	client.HTTP("https://unknown.example.com/api", "--connect", at+":443", "--insecure").WantRefused()
}
