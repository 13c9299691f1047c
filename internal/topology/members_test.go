// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestMembers(t *testing.T) {
	t.Parallel()
	bad := metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}
	teamA := metav1.LabelSelector{MatchLabels: map[string]string{"team": "a"}}
	tests := map[string]struct {
		selectors []metav1.LabelSelector
		labels    map[string]string
		want      bool
		wantError string
	}{
		"no selectors select everybody":            {want: true},
		"any of the selectors is enough":           {selectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"x": "y"}}, teamA}, labels: map[string]string{"team": "a"}, want: true},
		"none of them matches":                     {selectors: []metav1.LabelSelector{teamA}, labels: map[string]string{"team": "b"}},
		"one that does not compile selects nobody": {selectors: []metav1.LabelSelector{bad}, labels: map[string]string{"a": "b"}, wantError: "members[0]"},
		"the others still hold beside it":          {selectors: []metav1.LabelSelector{bad, teamA}, labels: map[string]string{"team": "a"}, want: true, wantError: "members[0]"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := CompileMembers(tt.selectors)
			if (err != nil) != (tt.wantError != "") || err != nil && !strings.Contains(err.Error(), tt.wantError) {
				t.Errorf("error %v, want one with %q", err, tt.wantError)
			}
			if got := m.Has(tt.labels); got != tt.want {
				t.Errorf("has %v: %v, want %v", tt.labels, got, tt.want)
			}
		})
	}
}
