// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package render_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/internal/render"
)

func chart(files map[string]string) fstest.MapFS {
	out := fstest.MapFS{"c/Chart.yaml": {Data: []byte("apiVersion: v2\nname: c\nversion: 1.0.0\n")}}
	for name, text := range files {
		out[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

const configMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\n"

func TestChart(t *testing.T) {
	tests := map[string]struct {
		files   map[string]string
		values  map[string]any
		want    []string
		wantErr string
	}{
		"objects in the order of files": {
			files: map[string]string{
				"c/templates/b.yaml": strings.Replace(configMap, "%s", "second", 1) + "---\n" + strings.Replace(configMap, "%s", "third", 1),
				"c/templates/a.yaml": strings.Replace(configMap, "%s", "first", 1),
			},
			want: []string{"first", "second", "third"},
		},
		"values over the chart's own": {
			files: map[string]string{
				"c/values.yaml":      "a: {first: one, second: two}\n",
				"c/templates/a.yaml": strings.Replace(configMap, "%s", "{{ .Values.a.first }}-{{ .Values.a.second }}", 1),
			},
			values: map[string]any{"a": map[string]any{"first": "changed"}},
			want:   []string{"changed-two"},
		},
		"templates of the library": {
			files: map[string]string{
				"library/_l.tpl":     `{{ define "n" }}shared-{{ .Release.Name }}{{ end }}`,
				"c/templates/a.yaml": strings.Replace(configMap, "%s", `{{ include "n" . }}`, 1),
			},
			want: []string{"shared-r"},
		},
		"nothing from what is empty": {
			files: map[string]string{"c/templates/a.yaml": "{{ if false }}x{{ end }}\n---\n# nothing\n"},
		},
		"a template that is wrong": {
			files:   map[string]string{"c/templates/a.yaml": "{{ .Values.a.b.c }}"},
			wantErr: "render chart c",
		},
		"an object without a name": {
			files:   map[string]string{"c/templates/a.yaml": "apiVersion: v1\nkind: ConfigMap\n"},
			wantErr: "no kind, apiVersion or name",
		},
		"values that the schema refuses": {
			files:   map[string]string{"c/values.schema.json": `{"type":"object","properties":{"n":{"type":"integer"}}}`},
			values:  map[string]any{"n": "x"},
			wantErr: "values of chart c",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			objects, err := render.Chart(chart(tt.files), "c", render.Release{Name: "r", Namespace: "n"}, tt.values)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("want %q, got %v", tt.wantErr, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, o := range objects {
				got = append(got, o.GetName())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestManifestCanBeAppliedFromTopToBottom(t *testing.T) {
	objects, err := render.Parse([]byte("{kind: Deployment, apiVersion: apps/v1, metadata: {name: a}}\n---\n" +
		"{kind: ClusterRole, apiVersion: v1, metadata: {name: a}}\n---\n{kind: Namespace, apiVersion: v1, metadata: {name: a}}"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := render.Manifest(objects)
	if err != nil {
		t.Fatal(err)
	}
	again, err := render.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range again {
		got = append(got, o.GetKind())
	}
	if diff := cmp.Diff([]string{"Namespace", "ClusterRole", "Deployment"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n"))
	f.Add([]byte("---\n# nothing\n---\n{}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		objects, err := render.Parse(text)
		if err != nil {
			return
		}
		for _, o := range objects {
			if o.GetKind() == "" || o.GetName() == "" {
				t.Errorf("an object without kind or name: %v", o.Object)
			}
		}
	})
}
