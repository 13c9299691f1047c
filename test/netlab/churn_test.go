// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/test/netlab"
)

const herd = `
apiVersion: v1
kind: Service
metadata: {name: herd}
spec: {ports: [{name: http, port: 80}]}
`

// herdOf is an EndpointSlice with these addresses.
func herdOf(ips []netip.Addr) string {
	var b strings.Builder
	b.WriteString(`
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: herd, labels: {kubernetes.io/service-name: herd}}
addressType: IPv4
ports: [{name: http, port: 80, protocol: TCP}]
endpoints:
`)
	for _, ip := range ips {
		fmt.Fprintf(&b, "- {addresses: [%s], conditions: {ready: true}}\n", ip)
	}
	return b.String()
}

// TestChurnOfEndpointsLosesNothing replaces two hundred endpoints under load, ten at a
// time: of twenty every one stands for a pod.
func TestChurnOfEndpointsLosesNothing(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	callers := []*netlab.Pod{lab.Pod("a"), lab.Pod("b")}
	all := lab.Herd("herd", 220)
	lab.Apply(herd + "---" + herdOf(all[:20]))
	var floods []func() netlab.Loss
	for _, c := range callers {
		c.Ask("http://herd/").WantOK()
		floods = append(floods, c.Flood("http://herd/"))
	}
	for from := 10; from <= 200; from += 10 {
		lab.Apply(herdOf(all[from : from+20]))
		callers[0].WantEndpoints("outbound|80||herd.default.svc.cluster.local", all[from:from+20])
	}
	for _, c := range callers {
		c.WantEndpoints("outbound|80||herd.default.svc.cluster.local", all[200:])
	}
	for _, stop := range floods {
		if err := stop().Err(); err != nil {
			t.Error(err)
		}
	}
}
