// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ingest"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

var update = flag.Bool("update", false, "write what the tests make into testdata")

// testCase is a directory of testdata.
type testCase struct {
	dir     string
	docs    []byte
	snap    *snapshot.Snapshot
	proxies map[string]*model.Proxy
}

// proxySpec is how the ConfigMap "proxies" of an input describes a proxy.
type proxySpec struct {
	Type, Namespace, Name, ServiceAccount, Locality, Node string
	IPs                                                   []netip.Addr
	Labels                                                map[string]string
	HostsApart                                            bool
}

func cases(t testing.TB) map[string]testCase {
	t.Helper()
	dirs, err := filepath.Glob("testdata/*/input.yaml")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	out := map[string]testCase{}
	for _, input := range dirs {
		dir := filepath.Dir(input)
		out[filepath.Base(dir)] = readCase(t, dir)
	}
	return out
}

func readCase(t testing.TB, dir string) testCase {
	t.Helper()
	docs, err := os.ReadFile(filepath.Join(dir, "input.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	snap, err := ingest.Load(docs, topology.Config{})
	if err != nil {
		t.Fatal(err)
	}
	c := testCase{dir: dir, docs: docs, snap: snap, proxies: map[string]*model.Proxy{}}
	for doc := range strings.SplitSeq(string(docs), "\n---\n") {
		var m struct {
			Metadata struct{ Name string }
			Data     map[string]string
		}
		if yaml.Unmarshal([]byte(doc), &m) != nil || m.Metadata.Name != "proxies" {
			continue
		}
		for name, text := range m.Data {
			var p proxySpec
			if err := yaml.UnmarshalStrict([]byte(text), &p); err != nil {
				t.Fatal(err)
			}
			c.proxies[name] = &model.Proxy{
				ID: name, Type: p.Type, Namespace: p.Namespace, Name: p.Name, IPs: p.IPs, Labels: p.Labels,
				ServiceAccount: p.ServiceAccount, Locality: p.Locality, Node: p.Node, Delta: true,
				HostsApart: p.HostsApart,
			}
		}
	}
	return c
}

// resources is all that a proxy gets, by type and name. Virtual hosts are in their
// tables, unless they come on their own.
type resources map[resource.Type]map[string]proto.Message

func generateAll(t testing.TB, snap *snapshot.Snapshot, p *model.Proxy) resources {
	t.Helper()
	out := resources{}
	for kind := range resource.NumTypes {
		out[kind] = map[string]proto.Message{}
	}
	for part := range resource.NumParts {
		for name, m := range generatePart(t, snap, p, part) {
			host, isHost := m.(*routev3.VirtualHost)
			if name, _, _ := strings.Cut(name, "/"); isHost && part != resource.UnregisteredHosts && out[resource.Route][name] == nil {
				t.Errorf("virtual host %s has no table", host.Name)
			}
			out[part.Type()][name] = m
		}
	}
	for name, table := range tablesOf(t, out) {
		if table.Vhds == nil {
			out[resource.Route][name] = table
		}
	}
	if !p.HostsApart {
		clear(out[resource.VirtualHost])
	}
	return out
}

// tablesOf puts virtual hosts into their tables, as Envoy does with those that
// come on their own, and checks what it demands.
func tablesOf(t testing.TB, rs resources) map[string]*routev3.RouteConfiguration {
	t.Helper()
	out := map[string]*routev3.RouteConfiguration{}
	for name, m := range rs[resource.Route] {
		table := proto.Clone(m).(*routev3.RouteConfiguration)
		for _, h := range table.VirtualHosts {
			if exact := slices.DeleteFunc(slices.Clone(h.Domains), func(d string) bool { return strings.HasPrefix(d, "*") }); table.Vhds != nil && len(exact) > 0 {
				t.Errorf("table %s has %v, which could move to a virtual host", name, exact)
			}
		}
		for full, m := range rs[resource.VirtualHost] {
			host := m.(*routev3.VirtualHost)
			if of, _, _ := strings.Cut(full, "/"); of != name {
				continue
			}
			table.VirtualHosts = append(table.VirtualHosts, host)
			if table.Vhds == nil {
				continue
			}
			if host.Name != full {
				t.Errorf("virtual host %s is resource %s", host.Name, full)
			}
			if slices.ContainsFunc(host.Domains, func(d string) bool { return strings.HasPrefix(d, "*") }) {
				t.Errorf("virtual host %s has %v, which could move to the table", full, host.Domains)
			}
		}
		slices.SortFunc(table.VirtualHosts, func(a, b *routev3.VirtualHost) int { return cmp.Compare(a.Name, b.Name) })
		if err := table.ValidateAll(); err != nil {
			t.Errorf("table %s: %v", table.Name, err)
		}
		onceEach(t, table)
		out[name] = table
	}
	return out
}

func generatePart(t testing.TB, snap *snapshot.Snapshot, p *model.Proxy, part resource.Part) map[string]proto.Message {
	t.Helper()
	names, err := New().Names(snap.View(p, nil), part)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]proto.Message{}
	for _, name := range names {
		m, _, err := New().Build(snap.View(p, nil), part, name)
		if err != nil {
			t.Fatal(err)
		}
		if m == nil {
			if part.Type() != resource.VirtualHost { // others may have all the names of a host
				t.Errorf("%s %q is listed, yet there is none", part.Type().URL(), name)
			}
			continue
		}
		if v, ok := m.(interface{ ValidateAll() error }); ok {
			if err := v.ValidateAll(); err != nil {
				t.Errorf("%s %q: %v", part.Type().URL(), name, err)
			}
		}
		out[name] = m
	}
	return out
}

// onceEach checks what makes Envoy refuse a table: a domain or a name that stands twice.
func onceEach(t testing.TB, table *routev3.RouteConfiguration) {
	t.Helper()
	domains, names := map[string]bool{}, map[string]bool{}
	for _, h := range table.VirtualHosts {
		if names[h.Name] {
			t.Errorf("table %s has two virtual hosts %s", table.Name, h.Name)
		}
		names[h.Name] = true
		for _, d := range h.Domains {
			if domains[strings.ToLower(d)] {
				t.Errorf("table %s has domain %s twice", table.Name, d)
			}
			domains[strings.ToLower(d)] = true
		}
	}
}

func typeName(k resource.Type) string {
	return [...]string{"clusters", "endpoints", "listeners", "routes", "hosts", "secrets"}[k]
}

// render writes resources as stable, readable JSON.
func render(t testing.TB, rs resources) []byte {
	t.Helper()
	doc := map[string][]json.RawMessage{}
	for kind, byName := range rs {
		for _, name := range slices.Sorted(maps.Keys(byName)) {
			raw, err := protojson.Marshal(byName[name])
			if err != nil {
				t.Fatal(err)
			}
			doc[typeName(kind)] = append(doc[typeName(kind)], raw)
		}
	}
	flat, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, flat, "", " "); err != nil {
		t.Fatal(err)
	}
	b.WriteByte('\n')
	return b.Bytes()
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for name, tc := range cases(t) {
		for proxy, p := range tc.proxies {
			t.Run(name+"/"+proxy, func(t *testing.T) {
				t.Parallel()
				got := render(t, generateAll(t, tc.snap, p))
				path := filepath.Join(tc.dir, proxy+".json")
				if *update {
					if err := os.WriteFile(path, got, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if diff := gocmp.Diff(string(want), string(got)); diff != "" {
					t.Errorf("run with -update if this is meant:\n%s", diff)
				}
			})
		}
	}
}
