// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package conditions_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/internal/conditions"
)

var (
	before = metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	now    = metav1.NewTime(time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))
)

func TestMerge(t *testing.T) {
	old := []metav1.Condition{
		{Type: "Ready", Status: metav1.ConditionTrue, Reason: "Fine", LastTransitionTime: before},
		{Type: "Gone", Status: metav1.ConditionTrue, Reason: "Fine", LastTransitionTime: before},
	}
	at := conditions.Stamp{Now: now, Generation: 3}
	tests := map[string]struct {
		said conditions.Condition
		want metav1.Condition
	}{
		"the same status keeps its time": {
			said: conditions.True("Ready", "Better", "m"),
			want: metav1.Condition{Type: "Ready", Status: metav1.ConditionTrue, Reason: "Better", Message: "m", LastTransitionTime: before, ObservedGeneration: 3},
		},
		"another status has the present time": {
			said: conditions.False("Ready", "Broken", "m"),
			want: metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "Broken", Message: "m", LastTransitionTime: now, ObservedGeneration: 3},
		},
		"a new one has the present time": {
			said: conditions.Unknown("New", "Why", "m"),
			want: metav1.Condition{Type: "New", Status: metav1.ConditionUnknown, Reason: "Why", Message: "m", LastTransitionTime: now, ObservedGeneration: 3},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff([]metav1.Condition{tt.want}, conditions.Merge(old, at, tt.said)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestMessagesFitTheAPI(t *testing.T) {
	got := conditions.Merge(nil, conditions.Stamp{}, conditions.True("Ready", "R", strings.Repeat("é", 40000)))
	if n := len(got[0].Message); n > 32768 || n == 0 {
		t.Errorf("%d bytes", n)
	}
}

func TestChanged(t *testing.T) {
	old := []metav1.Condition{{Type: "A", Status: "True", Reason: "x"}, {Type: "B", Status: "True", Reason: "x"}}
	now := []metav1.Condition{{Type: "A", Status: "True", Reason: "x", Message: "other"}, {Type: "B", Status: "False", Reason: "x"}, {Type: "C", Status: "True"}}
	var got []string
	for _, c := range conditions.Changed(old, now) {
		got = append(got, c.Type)
	}
	if diff := cmp.Diff([]string{"B", "C"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
