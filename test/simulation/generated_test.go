// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/catalog"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/generate"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ingest"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// TestWhatIsthmusdMakesIsDecided sends requests of all sorts to every listener,
// virtual host and server name that isthmusd makes of the translator's own cases:
// the evaluator must know all that is in them, and lose no share of any request.
func TestWhatIsthmusdMakesIsDecided(t *testing.T) {
	t.Parallel()
	inputs, err := filepath.Glob("../../internal/isthmusd/generate/testdata/*/input.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, input := range inputs {
		docs, err := os.ReadFile(input)
		if err != nil {
			t.Fatal(err)
		}
		snap, err := ingest.Load(docs, topology.Config{})
		if err != nil {
			t.Fatal(err)
		}
		for name, p := range proxiesOf(t, docs) {
			t.Run(filepath.Base(filepath.Dir(input))+"/"+name, func(t *testing.T) {
				t.Parallel()
				whole, err := FromState(stateFor(t, snap, p))
				if err != nil {
					t.Fatal(err)
				}
				p.HostsApart = true
				c, err := FromState(stateFor(t, snap, p))
				if err != nil {
					t.Fatal(err)
				}
				p.OnDemand = true
				asking, err := FromState(stateFor(t, snap, p))
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				for _, l := range c.listeners {
					for _, r := range requestsFor(t, c, l) {
						n++
						decided(t, c, r)
						sameEnd(t, whole, c, r)
						sameEnd(t, whole, asking, r)
					}
				}
				if n == 0 {
					t.Error("nothing to ask")
				}
			})
		}
	}
}

// sameEnd checks that it makes no difference whether virtual hosts come in their
// tables or on their own, and clusters all at once or when they are asked for.
func sameEnd(t *testing.T, whole, apart *Config, r Request) {
	t.Helper()
	a, b := Evaluate(whole, r), Evaluate(apart, r)
	if len(a) != len(b) {
		t.Fatalf("%s: %d outcomes with tables, %d otherwise", r, len(a), len(b))
	}
	for i := range a {
		if a[i].Verdict != b[i].Verdict || a[i].Cluster != b[i].Cluster || a[i].Status != b[i].Status || a[i].Share != b[i].Share {
			t.Errorf("with tables:\n%s\notherwise:\n%s", a[i].Explain(), b[i].Explain())
		}
	}
}

func decided(t *testing.T, c *Config, r Request) {
	t.Helper()
	var sum float64
	for _, o := range Evaluate(c, r) {
		sum += o.Share
		if o.Verdict == Undecided || o.Verdict == "" {
			t.Errorf("undecided:\n%s", o.Explain())
		}
	}
	if math.Abs(sum-1) > 1e-9 {
		t.Errorf("%s: shares add up to %v", r, sum)
	}
}

// proxiesOf reads the ConfigMap in which a case describes its proxies.
func proxiesOf(t *testing.T, docs []byte) map[string]*model.Proxy {
	t.Helper()
	out := map[string]*model.Proxy{}
	for doc := range strings.SplitSeq(string(docs), "\n---\n") {
		var m struct {
			Metadata struct{ Name string }
			Data     map[string]string
		}
		if yaml.Unmarshal([]byte(doc), &m) != nil || m.Metadata.Name != "proxies" {
			continue
		}
		for name, text := range m.Data {
			p := &model.Proxy{ID: name, Delta: true}
			if err := yaml.Unmarshal([]byte(text), p); err != nil {
				t.Fatal(err)
			}
			out[name] = p
		}
	}
	return out
}

// stateFor is what isthmusd would send to the proxy.
func stateFor(t *testing.T, snap *snapshot.Snapshot, p *model.Proxy) *resource.State {
	t.Helper()
	c := catalog.New(catalog.Options{Builder: generate.New()})
	c.Update(snap, nil)
	s, err := c.State(p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// requestsFor are some of every protocol for each destination, server name and
// domain that the listener knows, and for ones that it does not.
func requestsFor(t *testing.T, c *Config, l *listenerv3.Listener) []Request {
	t.Helper()
	base := Request{Source: netip.MustParseAddrPort("10.99.0.1:4000"), Destination: netip.MustParseAddrPort("10.99.0.2:80")}
	for _, a := range addresses(l) {
		ip := netip.MustParseAddr(a.GetAddress())
		if ip.IsUnspecified() {
			ip = base.Destination.Addr()
		}
		base.Destination = netip.AddrPortFrom(ip, uint16(a.GetPortValue()))
	}
	var out []Request
	add := func(r Request) {
		out = append(out, r)
		if l.GetInternalListener() == nil {
			out = append(out, r.Outbound(), r.Inbound())
		}
	}
	if l.GetInternalListener() != nil {
		base.Internal = l.Name
		base.State = map[string]string{restoredState: "198.51.100.1:5432", ir.DialledState: "198.51.100.1:5432"}
	}
	for _, name := range append(serverNames(l), "unknown.example") {
		for _, layer := range []TLS{{SNI: name}, {SNI: name, ALPN: []string{"istio-http/1.1", "istio", "h2"}, Peer: []string{"spiffe://cluster.local/ns/default/sa/a"}}} {
			r := base
			r.Protocol, r.TLS = TCP, []TLS{layer}
			add(r)
			r.Protocol, r.Authority = HTTP2, name
			add(r)
			r.Method, r.Authority, r.Carried = "CONNECT", "198.51.100.1:5432", &Request{Protocol: TCP}
			add(r)
		}
	}
	for _, host := range append(domains(t, c, l), "unknown.example") {
		for _, p := range []Protocol{HTTP1, HTTP2} {
			r := base
			r.Protocol, r.Authority, r.Path = p, strings.ReplaceAll(host, "*", "x"), "/some/path"
			add(r)
		}
	}
	base.Protocol, base.Silent = TCP, true
	add(base)
	return out
}

func serverNames(l *listenerv3.Listener) []string {
	var out []string
	for _, c := range l.GetFilterChains() {
		for _, n := range c.GetFilterChainMatch().GetServerNames() {
			out = append(out, strings.ReplaceAll(n, "*", "x"))
		}
	}
	return out
}

func domains(t *testing.T, c *Config, l *listenerv3.Listener) []string {
	t.Helper()
	var out []string
	for _, chain := range append(l.GetFilterChains(), l.GetDefaultFilterChain()) {
		for _, f := range chain.GetFilters() {
			m, ok, err := unpack(f.GetTypedConfig(), &hcmv3.HttpConnectionManager{})
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				continue
			}
			for _, table := range []*routev3.RouteConfiguration{m.GetRouteConfig(), c.routes[m.GetRds().GetRouteConfigName()]} {
				for _, vh := range table.GetVirtualHosts() {
					out = append(out, vh.Domains...)
				}
			}
		}
	}
	return out
}
