// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

const service = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.96.0.1
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
`

const pod = `
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {serviceAccountName: web, containers: [{name: app}], initContainers: [{name: istio-proxy}]}
status: {podIP: 10.0.0.1}
`

// follower runs an Ingest of a directory and waits for what it commits.
type follower struct {
	t       *testing.T
	dir     string
	ingest  *Ingest
	commits chan *snapshot.Snapshot
}

func follow(t *testing.T, files map[string]string) *follower {
	t.Helper()
	f := &follower{t: t, dir: t.TempDir(), commits: make(chan *snapshot.Snapshot, 100)}
	for name, content := range files {
		f.write(name, content)
	}
	c := Converter{Topology: Defaults(topology.Config{}), Standalone: true}
	f.ingest = New(Options{
		Store: snapshot.NewStore(c.Topology, &meshconfig.MeshConfig{}),
		Sink:  func(s *snapshot.Snapshot, _ snapshot.Changes) { f.commits <- s },
	}, &Dir{Path: f.dir, Converter: c})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.ingest.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return f
}

// write replaces a file by rename, as careful writers do.
func (f *follower) write(name, content string) {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	tmp := filepath.Join(f.dir, "."+filepath.Base(name)+".tmp")
	for _, err := range []error{
		os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(tmp, []byte(content), 0o644), os.Rename(tmp, path),
	} {
		if err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f *follower) view() *snapshot.View { return (<-f.commits).View(&model.Proxy{}, nil) }

var web = model.ServiceKey{Namespace: "shop", Host: "web.shop.svc.cluster.local"}

func TestADirectoryIsFollowed(t *testing.T) {
	t.Parallel()
	f := follow(t, map[string]string{"a.yaml": service, "deep/b.yaml": pod})
	v := f.view()
	want := []model.Endpoint{{
		Address: "10.0.0.1", Ports: map[string]uint32{"http": 8080}, Ready: true, Labels: map[string]string{"app": "web"},
		Namespace: "shop", Workload: "web-1", Pod: true, ServiceAccount: "web", TLSMode: model.TLSIstio,
	}}
	if diff := cmp.Diff(want, v.Endpoints(web)); diff != "" {
		t.Fatal(diff)
	}
	f.write("deep/b.yaml", strings.ReplaceAll(pod, "10.0.0.1", "10.0.0.2")+"---"+strings.ReplaceAll(pod, "web-1", "web-2"))
	if es := f.view().Endpoints(web); len(es) != 2 {
		t.Errorf("after the change: %+v", es)
	}
	f.write("new/c.yaml", strings.ReplaceAll(service, "web", "api"))
	if s := f.view().Services(); len(s) != 2 {
		t.Errorf("after a new directory: %d services", len(s))
	}
	if err := os.Remove(filepath.Join(f.dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	if s := f.view().Service(web); s != nil {
		t.Errorf("after the removal: %+v", s)
	}
}

func TestABrokenFileKeepsItsLastGoodContent(t *testing.T) {
	t.Parallel()
	f := follow(t, map[string]string{"a.yaml": service})
	f.view()
	f.write("a.yaml", "kind: [broken")
	f.write("b.yaml", strings.ReplaceAll(service, "web", "api"))
	v := f.view()
	if v.Service(web) == nil || len(v.Services()) != 2 {
		t.Errorf("%d services", len(v.Services()))
	}
	problems := f.ingest.Queue().Problems()
	if problems[filepath.Join(f.dir, "a.yaml")] == "" || len(problems) != 1 {
		t.Errorf("problems: %v", problems)
	}
	f.write("a.yaml", strings.ReplaceAll(service, "80,", "81,"))
	if s := f.view().Service(web); s.Ports[0].Number != 81 {
		t.Errorf("after the repair: %+v", s)
	}
	if problems := f.ingest.Queue().Problems(); len(problems) != 0 {
		t.Errorf("problems after the repair: %v", problems)
	}
}

func TestASwappedLinkIsOneChange(t *testing.T) {
	t.Parallel()
	f := follow(t, nil)
	f.view()
	generation := func(name, port string) {
		dir := filepath.Join(f.dir, "mount", name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{"web", "api"} {
			content := strings.NewReplacer("web", s, "port: 80", "port: "+port).Replace(service)
			if err := os.WriteFile(filepath.Join(dir, s+".yaml"), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
			_ = os.Symlink(filepath.Join("..data", s+".yaml"), filepath.Join(f.dir, "mount", s+".yaml"))
		}
		tmp := filepath.Join(f.dir, "mount", "..tmp")
		if err := os.Symlink(name, tmp); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(f.dir, "mount", "..data")); err != nil {
			t.Fatal(err)
		}
	}
	for _, port := range []string{"80", "81", "82"} {
		generation("..gen-"+port, port)
		for _, s := range f.view().Services() {
			if got := s.Ports[0].Number; got != map[string]uint32{"80": 80, "81": 81, "82": 82}[port] {
				t.Errorf("generation %s: %s has port %d", port, s.Host, got)
			}
		}
	}
}

func TestTheOldestOfTwoClaimsWins(t *testing.T) {
	t.Parallel()
	entry := `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: NAME, namespace: shop}
spec: {hosts: [db.example.com], ports: [{number: PORT, name: tcp, protocol: TCP}], resolution: DNS}
`
	make := func(name, port string) string { return strings.NewReplacer("NAME", name, "PORT", port).Replace(entry) }
	f := follow(t, map[string]string{"2.yaml": make("two", "2"), "3.yaml": make("three", "3")})
	key := model.ServiceKey{Namespace: "shop", Host: "db.example.com"}
	if s := f.view().Service(key); s.Ports[0].Number != 3 {
		t.Errorf("got port %d, want that of the first by name", s.Ports[0].Number)
	}
	f.write("3.yaml", "")
	if s := f.view().Service(key); s == nil || s.Ports[0].Number != 2 {
		t.Errorf("the other entry does not take over: %+v", s)
	}
}

func FuzzParseFile(f *testing.F) {
	f.Add([]byte(service + "---" + pod))
	f.Add([]byte("apiVersion: v1\nkind: List\nitems: [null]"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = parseFile(kinds(), Converter{Topology: Defaults(topology.Config{})}, b)
	})
}
