// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package image makes image archives that containerd imports, without a
// container engine and without a registry.
package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// File is one file of an image: a copy of Source, or Content.
type File struct {
	Path    string // in the image
	Source  string // on this machine; empty to use Content
	Content string
	Mode    int64 // 0 means 0755
}

// Image is what an archive holds.
type Image struct {
	Tags   []string
	Files  []File // in any order; of two with one path the later wins
	Config v1.Config
}

// defaultPath is what container engines set where an image says nothing.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Write writes the image to an archive at out. The same files under one name make
// the same bytes. The only layer is not compressed: for a binary of a hundred megabytes
// that would take seconds here and again at import.
func Write(out string, i Image) error {
	content, err := layer(i.Files)
	if err != nil {
		return err
	}
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer(content, types.DockerUncompressedLayer))
	if err != nil {
		return fmt.Errorf("add layer: %w", err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return fmt.Errorf("read image configuration: %w", err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", runtime.GOARCH
	cfg.Config = i.Config
	if !hasPath(cfg.Config.Env) {
		cfg.Config.Env = append([]string{defaultPath}, cfg.Config.Env...)
	}
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		return fmt.Errorf("set image configuration: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	names := map[name.Reference]v1.Image{}
	for _, t := range i.Tags {
		tag, err := name.NewTag(t)
		if err != nil {
			return fmt.Errorf("image name %q: %w", t, err)
		}
		names[tag] = img
	}
	if err := tarball.MultiRefWriteToFile(out, names); err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	return nil
}

func hasPath(env []string) bool {
	for _, e := range env {
		if strings.HasPrefix(e, "PATH=") {
			return true
		}
	}
	return false
}

func layer(files []File) ([]byte, error) {
	unique := map[string]File{}
	dirs := map[string]int64{"tmp": 0o1777}
	for _, f := range files {
		p := strings.TrimPrefix(path.Clean("/"+f.Path), "/")
		unique[p] = f
		for d := path.Dir(p); d != "."; d = path.Dir(d) {
			if _, ok := dirs[d]; !ok {
				dirs[d] = 0o755
			}
		}
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, d := range sorted(dirs) {
		h := &tar.Header{Typeflag: tar.TypeDir, Name: d + "/", Mode: dirs[d], ModTime: time.Unix(0, 0)}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("add %s to the layer: %w", d, err)
		}
	}
	for _, p := range sorted(unique) {
		if err := add(w, p, unique[p]); err != nil {
			return nil, fmt.Errorf("add %s to the layer: %w", p, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("end the layer: %w", err)
	}
	return buf.Bytes(), nil
}

func add(w *tar.Writer, path string, f File) error {
	content := []byte(f.Content)
	if f.Source != "" {
		var err error
		if content, err = os.ReadFile(f.Source); err != nil {
			return fmt.Errorf("read: %w", err)
		}
	}
	mode := f.Mode
	if mode == 0 {
		mode = 0o755
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: mode, Size: int64(len(content)), ModTime: time.Unix(0, 0)}
	if err := w.WriteHeader(h); err != nil {
		return fmt.Errorf("write header: %w", err)
	}
	if _, err := w.Write(content); err != nil {
		return fmt.Errorf("write content: %w", err)
	}
	return nil
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
