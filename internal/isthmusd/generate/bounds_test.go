// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"maps"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ingest"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// neighbours are a member and a namespace that is none, with the ways in which
// something in the cluster can be named.
const neighbours = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {mesh: "yes"}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: legacy}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: isthmus-system}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-0, namespace: shop, labels: {app: web}}, status: {phase: Running, podIP: 10.0.0.9}}
---
{apiVersion: v1, kind: Pod, metadata: {name: old-0, namespace: legacy, labels: {app: old}}, status: {phase: Running, podIP: 10.0.0.8}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: old, namespace: legacy}, spec: {clusterIP: 10.96.0.2, selector: {app: old}, ports: [{name: http, port: 80}, {name: tcp, port: 9000}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: olddb, namespace: legacy}, spec: {clusterIP: None, selector: {app: old}, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: passed, namespace: legacy}, spec: {clusterIP: 10.96.0.3, selector: {app: old}, ports: [{name: http, port: 80}]}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: passed, namespace: legacy}, spec: {host: passed, trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}}}
---
{apiVersion: v1, kind: Service, metadata: {name: kubernetes, namespace: default}, spec: {clusterIP: 10.96.0.4, ports: [{name: https, port: 443}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}, addressType: IPv4, endpoints: [{addresses: [172.16.0.1]}, {addresses: [172.16.0.2]}], ports: [{name: https, port: 443}]}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: vms, namespace: shop}, spec: {hosts: [vms.internal], location: MESH_INTERNAL, resolution: STATIC, endpoints: [{address: 172.16.0.1}, {address: 172.17.0.1}], ports: [{name: https, number: 443, protocol: TCP}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: range, namespace: shop}, spec: {hosts: [range.internal], location: MESH_INTERNAL, resolution: NONE, addresses: [172.17.0.0/24], ports: [{name: tcp, number: 9001, protocol: TCP}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: one, namespace: shop}, spec: {hosts: [one.internal], location: MESH_INTERNAL, resolution: NONE, addresses: [172.16.0.1], ports: [{name: https, number: 443, protocol: TCP}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: named, namespace: shop}, spec: {hosts: [named.internal], location: MESH_INTERNAL, resolution: DNS, ports: [{name: http, number: 80, protocol: HTTP}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: alias, namespace: shop}, spec: {hosts: [alias.internal], location: MESH_INTERNAL, resolution: DNS, endpoints: [{address: web.shop.svc.cluster.local}], ports: [{name: http, number: 80, protocol: HTTP}]}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: mixed, namespace: shop}, spec: {hosts: [mixed.internal], http: [
  {match: [{uri: {prefix: /both}}], route: [{destination: {host: web}, weight: 1}, {destination: {host: old.legacy.svc.cluster.local}, weight: 1}]},
  {route: [{destination: {host: old.legacy.svc.cluster.local}}]}]}}
---
{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: edge, namespace: isthmus-system}, spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*/*"]}]}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: edge, namespace: shop}, spec: {hosts: [shop.example.com], gateways: [isthmus-system/edge], http: [
  {match: [{uri: {prefix: /old}}], route: [{destination: {host: old.legacy.svc.cluster.local, port: {number: 80}}}]},
  {route: [{destination: {host: web}}]}]}}
`

// walled is a configuration in which members and the API server may be called.
func walled() topology.Config {
	c := throughEgress()
	c.Outbound = topology.AllowAny
	c.Namespace = "isthmus-system"
	members := topology.Peer{Namespaces: &metav1.LabelSelector{MatchLabels: map[string]string{"mesh": "yes"}}}
	gateways := topology.Peer{Namespace: "isthmus-system", Pods: &metav1.LabelSelector{MatchLabels: map[string]string{"istio": "ingressgateway"}}}
	c.Allowance = []topology.Flow{
		{From: members, To: []topology.Peer{members}},
		{From: gateways, To: []topology.Peer{members}},
		{From: members, To: []topology.Peer{{CIDR: "172.16.0.1/32"}}, Ports: []topology.Port{{Protocol: "TCP", Number: 443}}},
	}
	return c
}

// addresses lists what an assignment, or a cluster by itself, leads to.
func addresses(t *testing.T, rs resources, name string) []string {
	t.Helper()
	c, ok := rs[resource.Cluster][name].(*clusterv3.Cluster)
	if !ok {
		t.Fatalf("there is no cluster %s among %v", name, slices.Sorted(maps.Keys(rs[resource.Cluster])))
	}
	a := c.GetLoadAssignment()
	switch c.GetType() {
	case clusterv3.Cluster_EDS:
		a = rs[resource.Endpoint][name].(*endpointv3.ClusterLoadAssignment)
	case clusterv3.Cluster_ORIGINAL_DST:
		return []string{"wherever the client went"}
	}
	out := []string{}
	for _, l := range a.GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			out = append(out, e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress())
		}
	}
	return out
}

func TestNothingOutOfBoundsIsTried(t *testing.T) {
	t.Parallel()
	snap, err := ingest.Load([]byte(neighbours), walled())
	if err != nil {
		t.Fatal(err)
	}
	sidecar, gateway := generateAll(t, snap, shopSidecar()), generateAll(t, snap, edgeGateway())
	anywhere := []string{"wherever the client went"}
	tests := map[string]struct {
		rs      resources
		cluster string
		want    []string
	}{
		"a member":                                 {sidecar, "outbound|80||web.shop.svc.cluster.local", []string{"10.0.0.9"}},
		"a member from a gateway":                  {gateway, "outbound|80||web.shop.svc.cluster.local", []string{"10.0.0.9"}},
		"another namespace":                        {sidecar, "outbound|9000||old.legacy.svc.cluster.local", []string{}},
		"another namespace from a gateway":         {gateway, "outbound|80||old.legacy.svc.cluster.local", []string{}},
		"pods of another namespace by address":     {sidecar, "outbound|80||olddb.legacy.svc.cluster.local", []string{}},
		"where a client goes in another namespace": {sidecar, "outbound|80||passed.legacy.svc.cluster.local", []string{}},
		"endpoints that are allowed by address":    {sidecar, "outbound|443||kubernetes.default.svc.cluster.local", []string{"172.16.0.1"}},
		"endpoints of an entry":                    {sidecar, "outbound|443||vms.internal", []string{"172.16.0.1"}},
		"a range that is not allowed":              {sidecar, "outbound|9001||range.internal", []string{}},
		"an address that is":                       {sidecar, "outbound|443||one.internal", anywhere},
		"a name that may lead anywhere":            {sidecar, "outbound|80||named.internal", []string{}},
		"a name of a member's Service":             {sidecar, "outbound|80||alias.internal", []string{"web.shop.svc.cluster.local"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := addresses(t, tt.rs, tt.cluster); !slices.Equal(got, tt.want) {
				t.Errorf("%s leads to %v, want %v", tt.cluster, got, tt.want)
			}
		})
	}
}

func TestRequestsOutOfBoundsAreAnswered(t *testing.T) {
	t.Parallel()
	snap, err := ingest.Load([]byte(neighbours), walled())
	if err != nil {
		t.Fatal(err)
	}
	proxies := map[string]*model.Proxy{"80": shopSidecar(), "http.8080": edgeGateway()}
	tests := map[string]struct {
		table, host string
		want        []uint32 // status of each route, 0 where it leads somewhere
	}{
		"a member":                              {"80", "web.shop.svc.cluster.local:80", []uint32{0}},
		"another namespace":                     {"80", "old.legacy.svc.cluster.local:80", []uint32{502}},
		"a headless one there":                  {"80", "olddb.legacy.svc.cluster.local:80", []uint32{502}},
		"whatever a VirtualService sends there": {"80", "mixed.internal:80", []uint32{0, 502}},
		"what nobody registered":                {"80", "block_all", []uint32{502}},
		"another namespace from a gateway":      {"http.8080", "shop.example.com:8080", []uint32{502, 0}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table := generateAll(t, snap, proxies[tt.table])[resource.Route][tt.table].(*routev3.RouteConfiguration)
			i := slices.IndexFunc(table.VirtualHosts, func(h *routev3.VirtualHost) bool { return h.Name == tt.host })
			if i < 0 {
				t.Fatalf("no host %s in %v", tt.host, table.VirtualHosts)
			}
			var got []uint32
			for _, r := range table.VirtualHosts[i].Routes {
				got = append(got, r.GetDirectResponse().GetStatus())
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("answers %v, want %v", got, tt.want)
			}
		})
	}
}

func TestWithoutAnAllowanceEverythingIsTried(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*topology.Config){
		"no flows":         func(c *topology.Config) { c.Allowance = nil },
		"another topology": func(c *topology.Config) { c.Topology = topology.SidecarEgress },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := walled()
			change(&c)
			snap, err := ingest.Load([]byte(neighbours), c)
			if err != nil {
				t.Fatal(err)
			}
			rs := generateAll(t, snap, shopSidecar())
			if got := addresses(t, rs, "outbound|9000||old.legacy.svc.cluster.local"); !slices.Equal(got, []string{"10.0.0.8"}) {
				t.Errorf("leads to %v", got)
			}
			if table := rs[resource.Route]["80"].(*routev3.RouteConfiguration); !strings.Contains(table.String(), "allow_any") {
				t.Error("what nobody registered is refused")
			}
		})
	}
}
