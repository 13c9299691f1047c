// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	meshconfig "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/internal/topology"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden runs every directory of testdata: before.yaml is the pod; config.yaml,
// mesh.yaml and namespace.yaml replace the defaults where they exist. The outcome is
// after.yaml if the pod is injected, else outcome.txt.
func TestGolden(t *testing.T) {
	t.Parallel()
	dirs, err := filepath.Glob("testdata/cases/*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no golden cases: %v", err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			runGolden(t, dir)
		})
	}
}

func runGolden(t *testing.T, dir string) {
	req := Request{Pod: &corev1.Pod{}, Namespace: goldenNamespace(t, dir)}
	readYAML(t, filepath.Join(dir, "before.yaml"), req.Pod)
	in := goldenInjector(t, dir)
	original := req.Pod.DeepCopy()
	res, err := in.Inject(req)
	if diff := cmp.Diff(original, req.Pod); diff != "" {
		t.Errorf("the request's pod was changed:\n%s", diff)
	}
	file, got := "after.yaml", ""
	if err == nil && res.Pod != nil {
		b, merr := yaml.Marshal(res.Pod)
		if merr != nil {
			t.Fatal(merr)
		}
		got = string(b)
		checkIdempotent(t, in, req.Namespace, res.Pod)
		checkPatch(t, req.Pod, res.Pod)
	} else {
		file, got = "outcome.txt", outcome(t, res, err)
	}
	compareGolden(t, dir, file, got)
}

func outcome(t *testing.T, res Result, err error) string {
	t.Helper()
	if err == nil {
		return "left alone: " + string(res.Decision.Reason) + "\n"
	}
	if refusal := (*RefusedError)(nil); !errors.As(err, &refusal) {
		t.Fatalf("not a refusal: %v", err)
	}
	return "refused: " + err.Error() + "\n"
}

func compareGolden(t *testing.T, dir, file, got string) {
	t.Helper()
	path := filepath.Join(dir, file)
	if *update {
		for _, f := range []string{"after.yaml", "outcome.txt"} {
			_ = os.Remove(filepath.Join(dir, f))
		}
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; got:\n%s", err, got)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func goldenNamespace(t *testing.T, dir string) Namespace {
	t.Helper()
	path := filepath.Join(dir, "namespace.yaml")
	if _, err := os.Stat(path); err != nil {
		return Namespace{Name: "shop", Labels: map[string]string{LabelInjection: "enabled"}}
	}
	var ns corev1.Namespace
	readYAML(t, path, &ns)
	return Namespace{Name: ns.Name, Labels: ns.Labels}
}

func goldenInjector(t *testing.T, dir string) *Injector {
	t.Helper()
	cfg := topology.Config{
		Name: "default", Namespace: "isthmus-system", Revision: "default-0-1-0",
		TrustDomain: "cluster.local", ClusterDomain: "cluster.local",
		Injection: topology.Injection{Image: "isthmus/isthmus-proxy:0.1.0"},
	}
	if path := filepath.Join(dir, "config.yaml"); exists(path) {
		readYAML(t, path, &cfg)
	}
	mesh := &meshconfig.MeshConfig{}
	if path := filepath.Join(dir, "mesh.yaml"); exists(path) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		j, err := yaml.YAMLToJSON(b)
		if err != nil {
			t.Fatal(err)
		}
		if err := protojson.Unmarshal(j, mesh); err != nil {
			t.Fatal(err)
		}
	}
	in, err := New(FromTopology(cfg, mesh))
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(b, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}
