// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package render turns a chart and values into objects, with Helm's engine as a
// library. It is pure: no cluster, no clock, no randomness; the same chart and
// values give the same objects in the same order. Applying them is not its business.
package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// library is the directory of templates that every chart may include.
const library = "library"

// Release names what a chart is rendered as.
type Release struct{ Name, Namespace string }

// Chart renders the named chart of the file system with these values over the
// chart's own. Objects come in the order of the files' names, and within a file
// as written.
func Chart(from fs.FS, name string, release Release, values map[string]any) ([]*unstructured.Unstructured, error) {
	files, err := Templates(from, name, release, values)
	if err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	for _, f := range slices.Sorted(maps.Keys(files)) {
		found, err := Parse([]byte(files[f]))
		if err != nil {
			return nil, fmt.Errorf("render %s: %w", f, err)
		}
		objects = append(objects, found...)
	}
	return objects, nil
}

// Templates renders the named chart to text, by file.
func Templates(from fs.FS, name string, release Release, values map[string]any) (map[string]string, error) {
	c, err := load(from, name)
	if err != nil {
		return nil, err
	}
	if err := chartutil.ValidateAgainstSchema(c, values); err != nil {
		return nil, fmt.Errorf("values of chart %s: %w", name, err)
	}
	all, err := chartutil.ToRenderValues(c, values, chartutil.ReleaseOptions{
		Name: release.Name, Namespace: release.Namespace, Revision: 1, IsInstall: true,
	}, chartutil.DefaultCapabilities.Copy())
	if err != nil {
		return nil, fmt.Errorf("values of chart %s: %w", name, err)
	}
	out, err := engine.Engine{}.Render(c, all)
	if err != nil {
		return nil, fmt.Errorf("render chart %s: %w", name, err)
	}
	maps.DeleteFunc(out, func(file, text string) bool {
		ext := path.Ext(file)
		return (ext != ".yaml" && ext != ".yml") || strings.TrimSpace(text) == ""
	})
	return out, nil
}

// Values turns a typed struct into the values of a chart.
func Values(v any) (map[string]any, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("marshal values: %w", err)
	}
	var out map[string]any
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, fmt.Errorf("unmarshal values: %w", err)
	}
	return out, nil
}

// Parse reads the objects of a YAML stream; empty documents are skipped.
func Parse(text []byte) ([]*unstructured.Unstructured, error) {
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	var out []*unstructured.Unstructured
	for {
		u := &unstructured.Unstructured{}
		err := d.Decode(&u.Object)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("parse object %d: %w", len(out)+1, err)
		}
		if len(u.Object) == 0 {
			continue
		}
		if u.GetKind() == "" || u.GetAPIVersion() == "" || u.GetName() == "" {
			return nil, fmt.Errorf("object %d has no kind, apiVersion or name", len(out)+1)
		}
		out = append(out, u)
	}
}

func load(from fs.FS, name string) (*chart.Chart, error) {
	files, err := read(from, name, "")
	if err != nil {
		return nil, err
	}
	shared, err := read(from, library, "templates/")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	c, err := loader.LoadFiles(append(files, shared...))
	if err != nil {
		return nil, fmt.Errorf("load chart %s: %w", name, err)
	}
	return c, nil
}

func read(from fs.FS, dir, prefix string) ([]*loader.BufferedFile, error) {
	var files []*loader.BufferedFile
	err := fs.WalkDir(from, dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(from, p)
		if err != nil {
			return err
		}
		files = append(files, &loader.BufferedFile{Name: prefix + strings.TrimPrefix(p, dir+"/"), Data: b})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read chart %s: %w", dir, err)
	}
	return files, nil
}
