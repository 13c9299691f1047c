// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"slices"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ingest"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// byAddress are destinations that are reached at the address that a client dials.
const byAddress = `
{apiVersion: v1, kind: Pod, metadata: {name: db-0, namespace: shop, labels: {app: db}}, status: {phase: Running, podIP: 10.0.0.9, conditions: [{type: Ready, status: "True"}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop}, spec: {clusterIP: None, selector: {app: db}, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: nobody, namespace: shop}, spec: {clusterIP: None, selector: {app: none}, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: passed, namespace: shop}, spec: {clusterIP: 10.96.0.3, selector: {app: db}, ports: [{name: http, port: 80}]}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: passed, namespace: shop}, spec: {host: passed, trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: range, namespace: shop}, spec: {hosts: [range.example.com], resolution: NONE, addresses: [192.0.2.0/24], ports: [{name: http, number: 80, protocol: HTTP}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: any, namespace: shop}, spec: {hosts: [any.example.com], resolution: NONE, ports: [{name: http, number: 80, protocol: HTTP}]}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: mixed, namespace: shop}, spec: {hosts: [mixed.example.com], http: [{route: [{destination: {host: db}, weight: 1}, {destination: {host: passed}, weight: 1}]}]}}
---
{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: edge, namespace: isthmus-system}, spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*/*"]}]}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: edge, namespace: shop}, spec: {hosts: [shop.example.com], gateways: [isthmus-system/edge], http: [{route: [{destination: {host: any.example.com}}]}]}}
`

func registryOnly() topology.Config { return topology.Config{Outbound: topology.RegistryOnly} }

// dialable lists the addresses that the first route of a host wants its clients
// to have dialled; nil if it wants none in particular.
func dialable(t *testing.T, rs resources, host string) []string {
	t.Helper()
	table := rs[resource.Route]["80"].(*routev3.RouteConfiguration)
	i := slices.IndexFunc(table.VirtualHosts, func(h *routev3.VirtualHost) bool { return h.Name == host })
	if i < 0 {
		t.Fatalf("no host %s in %v", host, table)
	}
	config, ok := table.VirtualHosts[i].Routes[0].TypedPerFilterConfig["envoy.filters.http.rbac"]
	if !ok {
		return nil
	}
	var m httprbacv3.RBACPerRoute
	if err := config.UnmarshalTo(&m); err != nil {
		t.Fatal(err)
	}
	if m.Rbac.Rules == nil {
		t.Fatal("rules that are not there let everybody pass")
	}
	out := []string{}
	for _, p := range m.Rbac.Rules.Policies["dialled"].GetPermissions() {
		out = append(out, p.GetDestinationIp().GetAddressPrefix())
	}
	return out
}

func TestAHostNameIsNoWayToOtherAddresses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		config topology.Config
		host   string
		want   []string
	}{
		"a headless service":                            {registryOnly(), "db.shop.svc.cluster.local:80", []string{"10.0.0.9"}},
		"a headless service without pods":               {registryOnly(), "nobody.shop.svc.cluster.local:80", []string{}},
		"one that passes on to where the client went":   {registryOnly(), "passed.shop.svc.cluster.local:80", []string{"10.96.0.3"}},
		"an entry for a range":                          {registryOnly(), "range.example.com:80", []string{"192.0.2.0"}},
		"whatever a VirtualService leads to":            {registryOnly(), "mixed.example.com:80", []string{"10.0.0.9", "10.96.0.3"}},
		"an entry whose name is resolved by the proxy":  {registryOnly(), "any.example.com:80", nil},
		"no service where every address may be reached": {topology.Config{}, "db.shop.svc.cluster.local:80", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			snap, err := ingest.Load([]byte(byAddress), tt.config)
			if err != nil {
				t.Fatal(err)
			}
			got := dialable(t, generateAll(t, snap, shopSidecar()), tt.host)
			if !slices.Equal(got, tt.want) || (got == nil) != (tt.want == nil) {
				t.Errorf("%s may be called at %v, want %v", tt.host, got, tt.want)
			}
		})
	}
}

func TestWhoResolvesANameThatClientsResolve(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		config topology.Config
		proxy  *model.Proxy
		want   clusterv3.Cluster_DiscoveryType
	}{
		"clients, where they may go anywhere":     {topology.Config{}, shopSidecar(), clusterv3.Cluster_ORIGINAL_DST},
		"the proxy, where they may not":           {registryOnly(), shopSidecar(), clusterv3.Cluster_STRICT_DNS},
		"a gateway, whose clients dialled itself": {topology.Config{}, edgeGateway(), clusterv3.Cluster_STRICT_DNS},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			snap, err := ingest.Load([]byte(byAddress), tt.config)
			if err != nil {
				t.Fatal(err)
			}
			c := generateAll(t, snap, tt.proxy)[resource.Cluster]["outbound|80||any.example.com"].(*clusterv3.Cluster)
			if got := c.GetType(); got != tt.want {
				t.Errorf("the cluster is %s, want %s", got, tt.want)
			}
		})
	}
}

const tenants = `
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: all, namespace: isthmus-system}, spec: {hosts: ["*.example.com"], location: MESH_EXTERNAL, ports: [{name: http, number: 80, protocol: HTTP}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: api, namespace: bank}, spec: {hosts: [api.example.com], location: MESH_EXTERNAL, resolution: DNS, exportTo: ["*"], ports: [{name: http, number: 80, protocol: HTTP}]}}
`

func TestATenantsEntryIsItsOwnWhereAllLeaveByTheGateway(t *testing.T) {
	t.Parallel()
	through := throughEgress()
	through.Namespace = "isthmus-system"
	in := func(ns string) *model.Proxy {
		p := shopSidecar()
		p.Namespace = ns
		return p
	}
	tests := map[string]struct {
		config topology.Config
		proxy  *model.Proxy
		want   bool
	}{
		"its own namespace sees it":               {through, in("bank"), true},
		"the platform's namespace sees it":        {through, in("isthmus-system"), true},
		"another tenant does not":                 {through, in("shop"), false},
		"another tenant does in other topologies": {registryOnly(), in("shop"), true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			snap, err := ingest.Load([]byte(tenants+egressService), tt.config)
			if err != nil {
				t.Fatal(err)
			}
			rs := generateAll(t, snap, tt.proxy)
			if _, got := rs[resource.Cluster]["outbound|80||api.example.com"]; got != tt.want {
				t.Errorf("sees the entry: %v", got)
			}
			if rs[resource.Cluster]["outbound|80||*.example.com"] == nil {
				t.Error("the platform's entry is hidden")
			}
		})
	}
}
