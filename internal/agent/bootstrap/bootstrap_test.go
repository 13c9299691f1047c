// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/test/binaries"
)

var update = flag.Bool("update", false, "write the golden files anew")

func params(change func(*Params)) Params {
	p := Params{
		Node: Node{
			Role: Sidecar, Name: "cart-7d9f-x2x", Namespace: "shop",
			IPs:           []netip.Addr{netip.MustParseAddr("10.1.2.3")},
			ClusterDomain: "cluster.local", ServiceAccount: "cart", Workload: "cart",
			Labels: map[string]string{"app": "cart", "pod-template-hash": "7d9f"},
			Annotations: map[string]string{
				"sidecar.istio.io/inject":     "true",
				"kubernetes.io/config.source": "api",
			},
			Metadata: map[string]any{"CLUSTER_ID": "Kubernetes", "INTERCEPTION_MODE": "REDIRECT"},
		},
		Discovery:   "isthmusd-default.isthmus-system.svc:15012",
		ServerName:  "isthmusd-default.isthmus-system.svc",
		Admin:       "127.0.0.1:15000",
		Status:      "127.0.0.1:15020",
		MetricsPort: 15090,
		HealthPort:  15021,
	}
	change(&p)
	return p
}

func TestBuild(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*Params){
		"sidecar": func(*Params) {},
		"router-dual-stack": func(p *Params) {
			p.Node.Role = Router
			p.Node.IPs = append(p.Node.IPs, netip.MustParseAddr("fd00::3"))
			p.Node.Labels = map[string]string{"topology.kubernetes.io/region": "eu", "topology.kubernetes.io/zone": "eu-1"}
			p.Admin = "./etc/istio/proxy/admin.sock"
			p.Stats = Stats{Prefixes: []string{"cluster."}, Regexps: []string{"http.*"}}
		},
		"state-of-the-world":  func(p *Params) { p.Protocol = StateOfTheWorld },
		"isthmusd-by-address": func(p *Params) { p.Discovery = "[fd00::1]:15012" },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, err := Build(params(change))
			if err != nil {
				t.Fatal(err)
			}
			validate(t, b)
			var got bytes.Buffer
			if err := json.Indent(&got, b, "", "  "); err != nil {
				t.Fatal(err)
			}
			got.WriteByte('\n')
			file := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(file, got.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			// protojson puts spaces at random, Indent takes them out again.
			if d := cmp.Diff(string(want), got.String()); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// validate asks Envoy itself, where there is one.
func validate(t *testing.T, b []byte) {
	t.Helper()
	envoy, err := binaries.Find("envoy")
	if err != nil {
		t.Logf("not validated by Envoy: %v", err)
		return
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "bootstrap.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(envoy, "--mode", "validate", "-c", file, "--log-level", "warning")
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("envoy refuses the bootstrap: %v\n%s", err, out)
	} else if bytes.Contains(out, []byte("warning")) {
		t.Errorf("envoy warns:\n%s", out)
	}
}

func TestBuildRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*Params){
		"a pod without address":     func(p *Params) { p.Node.IPs = nil },
		"a pod without name":        func(p *Params) { p.Node.Name = "" },
		"discovery without port":    func(p *Params) { p.Discovery = "isthmusd" },
		"admin that is no address":  func(p *Params) { p.Admin = "15000" },
		"metadata that is not JSON": func(p *Params) { p.Node.Metadata["X"] = struct{}{} },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := Build(params(change)); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestParseDownward(t *testing.T) {
	t.Parallel()
	got, err := ParseDownward([]byte("app=\"cart\"\nnote=\"two\\nlines = \\\"quoted\\\"\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"app": "cart", "note": "two\nlines = \"quoted\""}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if _, err := ParseDownward([]byte("app=cart")); err == nil {
		t.Error("accepted a value without quotes")
	}
}

func FuzzParseDownward(f *testing.F) {
	f.Add([]byte("app=\"cart\"\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := ParseDownward(b); (m == nil) == (err == nil) {
			t.Errorf("%v with error %v", m, err)
		}
	})
}

func TestLocality(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		labels map[string]string
		want   string
	}{
		"Istio's label with dots":    {labels: map[string]string{"istio-locality": "eu.eu-1.rack"}, want: "eu/eu-1/rack"},
		"Istio's label with slashes": {labels: map[string]string{"topology.istio.io/locality": "eu/eu-1"}, want: "eu/eu-1/"},
		"Kubernetes' labels":         {labels: map[string]string{"topology.kubernetes.io/zone": "z"}, want: "/z/"},
		"none":                       {want: "//"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := locality(tt.labels)
			if got := l.GetRegion() + "/" + l.GetZone() + "/" + l.GetSubZone(); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
