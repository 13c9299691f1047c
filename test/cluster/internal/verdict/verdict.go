// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package verdict is what the program of Kubernetes' own suite says of a case to
// whoever runs it.
package verdict

// Verdict is how one case ended.
type Verdict struct {
	Case    string  `json:"case"`
	State   string  `json:"state"` // Passed and Skipped are in order, all others are failures
	Seconds float64 `json:"seconds"`
	Why     string  `json:"why,omitempty"`
	Output  string  `json:"output,omitempty"` // all that a case wrote that failed
}

// The states that are no failures.
const (
	Passed  = "passed"
	Skipped = "skipped"
)

// Failed says whether the case neither passed nor was skipped.
func (v Verdict) Failed() bool { return v.State != Passed && v.State != Skipped }
