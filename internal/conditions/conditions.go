// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package conditions keeps lists of conditions: what is said is computed as
// values, and merged into what was said before so that transition times move only
// with a status. It has no clock; callers pass the time.
package conditions

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Condition is what is said now.
type Condition struct {
	Type    string
	Status  metav1.ConditionStatus
	Reason  string
	Message string
}

// True makes a Condition that holds.
func True(kind, reason, message string) Condition {
	return Condition{Type: kind, Status: metav1.ConditionTrue, Reason: reason, Message: message}
}

// False makes a Condition that does not hold.
func False(kind, reason, message string) Condition {
	return Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: message}
}

// Unknown makes a Condition of which nothing is known.
func Unknown(kind, reason, message string) Condition {
	return Condition{Type: kind, Status: metav1.ConditionUnknown, Reason: reason, Message: message}
}

// Stamp is when, and of which generation of the spec, conditions are said.
type Stamp struct {
	Now        metav1.Time
	Generation int64
}

// Merge is the new list: exactly the given conditions, in their order.
func Merge(old []metav1.Condition, at Stamp, said ...Condition) []metav1.Condition {
	out := make([]metav1.Condition, 0, len(said))
	for _, c := range said {
		n := metav1.Condition{
			Type: c.Type, Status: c.Status, Reason: c.Reason, Message: limit(c.Message),
			ObservedGeneration: at.Generation, LastTransitionTime: at.Now,
		}
		if i := slices.IndexFunc(old, func(o metav1.Condition) bool { return o.Type == c.Type }); i >= 0 && old[i].Status == c.Status {
			n.LastTransitionTime = old[i].LastTransitionTime
		}
		out = append(out, n)
	}
	return out
}

// Changed lists the conditions of the new list whose status or reason differ from
// the old list's.
func Changed(old, now []metav1.Condition) []metav1.Condition {
	var out []metav1.Condition
	for _, n := range now {
		same := func(o metav1.Condition) bool {
			return o.Type == n.Type && o.Status == n.Status && o.Reason == n.Reason
		}
		if !slices.ContainsFunc(old, same) {
			out = append(out, n)
		}
	}
	return out
}

// limit keeps a message within what the API takes.
func limit(s string) string {
	const most = 2000
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + " …"
}
