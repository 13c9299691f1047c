// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ingest"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// throughEgress is the topology's configuration with a gateway for the way out.
func throughEgress() topology.Config {
	return topology.Config{
		Topology: topology.EgressGateway, Outbound: topology.RegistryOnly,
		EgressGateway: &topology.Gateway{
			Namespace: "isthmus-system", Service: "egress", ServiceAccount: "egress",
			Labels: map[string]string{"istio": "egressgateway"}, Port: 15443,
		},
	}
}

const egressService = `
---
{apiVersion: v1, kind: Service, metadata: {name: egress, namespace: isthmus-system}, spec: {clusterIP: 10.96.9.9, ports: [{name: tls, port: 15443}]}}
`

// tenantEntry registers api.example.com for the tenant's namespace; the lower the
// number, the older.
func tenantEntry(n int) string {
	return fmt.Sprintf(`
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: tenant-%d, creationTimestamp: "2026-01-01T00:00:%02dZ"}
spec: {hosts: [api.example.com], location: MESH_EXTERNAL, resolution: DNS, exportTo: ["."], ports: [{number: 443, name: tls, protocol: TLS}]}
`, n, n)
}

// keysOf maps tenants to the key by which their sidecars name the host.
func keysOf(t *testing.T, tenants []int) map[int]string {
	t.Helper()
	docs := []string{egressService}
	for _, n := range tenants {
		docs = append(docs, tenantEntry(n))
	}
	snap, err := ingest.Load([]byte(strings.Join(docs, "")), throughEgress())
	if err != nil {
		t.Fatal(err)
	}
	gateway := edgeGateway()
	gateway.Labels = map[string]string{"istio": "egressgateway"}
	l := generateAll(t, snap, gateway)[resource.Listener]["0.0.0.0_15443"].(*listenerv3.Listener)
	out := map[int]string{}
	for _, n := range tenants {
		p := shopSidecar()
		p.Namespace = fmt.Sprintf("tenant-%d", n)
		out[n] = serverNameOf(t, generateAll(t, snap, p)[resource.Cluster]["outbound|443||api.example.com"])
		opened := slices.ContainsFunc(l.FilterChains, func(c *listenerv3.FilterChain) bool {
			return slices.Equal(c.FilterChainMatch.GetServerNames(), []string{out[n]})
		})
		if !opened {
			t.Errorf("the gateway does not open %s", out[n])
		}
	}
	return out
}

// serverNameOf is the SNI that a cluster greets with.
func serverNameOf(t *testing.T, m any) string {
	t.Helper()
	var c tlsv3.UpstreamTlsContext
	if err := m.(*clusterv3.Cluster).GetTransportSocket().GetTypedConfig().UnmarshalTo(&c); err != nil {
		t.Fatal(err)
	}
	return c.Sni
}

// TestAKeyStaysWhileNoOlderEntryGoes: long connections end with their chain.
func TestAKeyStaysWhileNoOlderEntryGoes(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	var tenants []int
	before := map[int]string{}
	for step := range 200 {
		n := r.IntN(6)
		if i := slices.Index(tenants, n); i >= 0 {
			tenants = slices.Delete(tenants, i, i+1)
		} else {
			tenants = append(tenants, n)
		}
		if len(tenants) == 0 {
			before = map[int]string{}
			continue
		}
		now := keysOf(t, tenants)
		inClear := 0
		for m, key := range now {
			if key == "outbound_.443_._.api.example.com" {
				inClear++
			}
			if was, ok := before[m]; ok && was != key && n > m {
				t.Fatalf("step %d: a younger entry, of tenant %d, moves tenant %d from %s to %s", step, n, m, was, key)
			}
		}
		if inClear != 1 || now[slices.Min(tenants)] != "outbound_.443_._.api.example.com" {
			t.Fatalf("step %d: the clear key is not the oldest entry's alone: %v", step, now)
		}
		before = now
	}
}
