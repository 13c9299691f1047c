// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package validate

import (
	"fmt"
	"strconv"
)

// checker collects problems under a path. It is a value: at, index and key descend
// without changing the checker they are called on.
type checker struct {
	report *Report
	path   string
}

func (c checker) at(field string) checker {
	c.path += "." + field
	return c
}

func (c checker) index(i int) checker {
	c.path += "[" + strconv.Itoa(i) + "]"
	return c
}

func (c checker) key(k string) checker {
	c.path += "[" + abbreviate(k) + "]"
	return c
}

// refuse notes why the object cannot be stored.
func (c checker) refuse(wrong, right string) {
	c.report.Refused = append(c.report.Refused, Problem{Field: c.path, Wrong: wrong, Right: right})
}

// warn notes what the author should know.
func (c checker) warn(wrong, right string) {
	c.report.Warned = append(c.report.Warned, Problem{Field: c.path, Wrong: wrong, Right: right})
}

// quote shows a value in a message without letting it grow out of hand.
func quote(s string) string { return fmt.Sprintf("%q", abbreviate(s)) }

func abbreviate(s string) string {
	const limit = 80
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "…"
}
