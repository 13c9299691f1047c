// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

const dumped = `{"configs": [
	{"static_clusters": [{"cluster": {"name": "admin"}, "last_updated": "2026-01-01T00:00:00Z"}],
	 "dynamic_active_clusters": [{"version_info": "7", "last_updated": "2026-01-01T00:00:01Z",
		"cluster": {"name": "b", "metadata": {"filter_metadata": {"x": {"p": 1}, "y": {"q": 2}}}}}],
	 "dynamic_warming_clusters": [{"version_info": "8", "last_updated": "2026-01-01T00:00:02Z", "cluster": {"name": "warms"}}]},
	{"dynamic_listeners": [{"name": "gone", "draining_state": {"listener": {"name": "gone"}, "last_updated": "2026-01-01T00:00:02Z"}},
		{"name": "in", "active_state": {"version_info": "7", "listener": {"name": "in"}, "last_updated": "2026-01-01T00:00:02Z"}}]},
	{"dynamic_endpoint_configs": [{"endpoint_config": {"cluster_name": "b", "endpoints": [{"priority": 1}]}}]}]}`

func TestAReaderReadsAnewWhatHasChanged(t *testing.T) {
	cases := map[string]struct {
		change             *strings.Replacer
		cluster, endpoints bool // are read anew
	}{
		"nothing has changed":              {change: strings.NewReplacer()},
		"maps come in another order":       {change: strings.NewReplacer(`"x": {"p": 1}, "y": {"q": 2}`, `"y": {"q": 2}, "x": {"p": 1}`)},
		"the cluster has another version":  {change: strings.NewReplacer(`"7"`, `"9"`), cluster: true},
		"the cluster came at another time": {change: strings.NewReplacer("00:01Z", "00:03Z"), cluster: true},
		"endpoints have changed":           {change: strings.NewReplacer(`"priority": 1`, `"priority": 2`), endpoints: true},
	}
	writers := map[string]func(string) []byte{
		"compact": func(text string) []byte { return []byte(text) },
		"as Envoy writes it": func(text string) []byte {
			var out bytes.Buffer
			if err := json.Indent(&out, []byte(text), "", " "); err != nil {
				t.Fatal(err)
			}
			return out.Bytes()
		},
	}
	for name, c := range cases {
		for how, write := range writers {
			t.Run(name+", "+how, func(t *testing.T) {
				var r Reader
				before, err := r.Read(write(dumped))
				if err != nil {
					t.Fatal(err)
				}
				if len(before.clusters) != 2 || len(before.listeners) != 1 || before.assignments["b"].GetEndpoints()[0].GetPriority() != 1 {
					t.Fatalf("it read %+v", before)
				}
				after, err := r.Read(write(c.change.Replace(dumped)))
				if err != nil {
					t.Fatal(err)
				}
				if before.clusters["admin"] != after.clusters["admin"] {
					t.Error("the cluster that did not change was read anew")
				}
				if anew := before.clusters["b"] != after.clusters["b"]; anew != c.cluster {
					t.Errorf("cluster read anew: %t, want %t", anew, c.cluster)
				}
				if anew := before.assignments["b"] != after.assignments["b"]; anew != c.endpoints {
					t.Errorf("endpoints read anew: %t, want %t", anew, c.endpoints)
				}
			})
		}
	}
}

// Parts of a dump as Envoy writes it are cut out, so that they can be compared.
func TestPartsAreCutOut(t *testing.T) {
	var text bytes.Buffer
	if err := json.Indent(&text, []byte(dumped), "", " "); err != nil {
		t.Fatal(err)
	}
	outline, parts := cut(text.Bytes())
	if len(parts) != 6 || bytes.Contains(outline, []byte("last_updated")) {
		t.Errorf("%d parts are cut out of\n%s", len(parts), outline)
	}
}
