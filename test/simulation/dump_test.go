// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"strings"
	"testing"
)

const dumped = `{"configs": [
	{"static_clusters": [{"cluster": {"name": "admin"}, "last_updated": "2026-01-01T00:00:00Z"}],
	 "dynamic_active_clusters": [{"version_info": "7", "last_updated": "2026-01-01T00:00:01Z",
		"cluster": {"name": "b", "metadata": {"filter_metadata": {"x": {"p": 1}, "y": {"q": 2}}}}}]},
	{"dynamic_endpoint_configs": [{"endpoint_config": {"cluster_name": "b"}}]}]}`

func TestAReaderReadsAnewWhatHasChanged(t *testing.T) {
	cases := map[string]struct {
		change *strings.Replacer
		anew   bool
	}{
		"nothing has changed":              {change: strings.NewReplacer()},
		"maps come in another order":       {change: strings.NewReplacer(`"x": {"p": 1}, "y": {"q": 2}`, `"y": {"q": 2}, "x": {"p": 1}`)},
		"the cluster has another version":  {change: strings.NewReplacer(`"7"`, `"8"`), anew: true},
		"the cluster came at another time": {change: strings.NewReplacer("00:01Z", "00:02Z"), anew: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var r Reader
			before, err := r.Read([]byte(dumped))
			if err != nil {
				t.Fatal(err)
			}
			after, err := r.Read([]byte(c.change.Replace(dumped)))
			if err != nil {
				t.Fatal(err)
			}
			if before.clusters["admin"] != after.clusters["admin"] {
				t.Error("the cluster that did not change was read anew")
			}
			if anew := before.clusters["b"] != after.clusters["b"]; anew != c.anew {
				t.Errorf("cluster read anew: %t, want %t", anew, c.anew)
			}
			if before.assignments["b"] == after.assignments["b"] {
				t.Error("endpoints were not read anew")
			}
		})
	}
}
