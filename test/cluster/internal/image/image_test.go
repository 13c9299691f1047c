// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func TestWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	source := filepath.Join(dir, "program")
	if err := os.WriteFile(source, []byte("binary"), 0o600); err != nil {
		t.Fatal(err)
	}
	i := Image{
		Tags:   []string{"local/x:1"},
		Config: v1.Config{Entrypoint: []string{"/bin/x"}, User: "7"},
		Files: []File{
			{Path: "/etc/x/conf", Content: "first", Mode: 0o600},
			{Path: "bin/x", Source: source},
			{Path: "etc/x/conf", Content: "second", Mode: 0o640},
		},
	}
	one, two := filepath.Join(dir, "1.tar"), filepath.Join(dir, "2.tar")
	for _, out := range []string{one, two} {
		if err := Write(out, i); err != nil {
			t.Fatal(err)
		}
	}
	a, _ := os.ReadFile(one)
	b, _ := os.ReadFile(two)
	if !bytes.Equal(a, b) {
		t.Error("the same image made two archives")
	}
	img, err := tarball.ImageFromPath(one, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.OS != "linux" || cfg.Config.User != "7" || len(cfg.Config.Env) != 1 {
		t.Errorf("configuration %+v", cfg)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("layers %v and %v", layers, err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"bin/ ", "etc/ ", "etc/x/ ", "tmp/ ", "bin/x binary", "etc/x/conf second"}
	if d := cmp.Diff(want, list(t, content)); d != "" {
		t.Errorf("layer (-want +got):\n%s", d)
	}
}

func TestWriteSeveralNames(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "image.tar")
	want := []string{"local/x:1", "local/y:2"}
	if err := Write(out, Image{Tags: want, Files: []File{{Path: "f", Content: "x"}}}); err != nil {
		t.Fatal(err)
	}
	manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(out) })
	if err != nil || len(manifest) != 1 {
		t.Fatalf("manifest %v and %v", manifest, err)
	}
	slices.Sort(manifest[0].RepoTags)
	if d := cmp.Diff(want, manifest[0].RepoTags); d != "" {
		t.Errorf("names (-want +got):\n%s", d)
	}
}

func list(t *testing.T, r io.Reader) []string {
	t.Helper()
	var all []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, h.Name+" "+string(b))
	}
}
