// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package figure holds measured values against what is wanted of them, and draws
// them.
package figure

import (
	"fmt"
	"math"
	"strconv"
)

// Figure is a drawing: values that belong together, in panels of one unit each.
type Figure struct {
	Name, Title string
	Panels      []Panel
}

// Panel is rows of one unit.
type Panel struct {
	Unit string
	Rows []Row
}

// Row is one value of isthmusd, beside that of istiod (0 if there is none) and the
// bar that it has to clear (0 if there is none).
type Row struct {
	Label              string
	Istiod, Bar, Value float64
	// AtLeast is set where more is better.
	AtLeast bool
}

// Holds tells whether the value clears the bar; there must be one.
func (r Row) Holds() bool {
	if r.AtLeast {
		return r.Value >= r.Bar
	}
	return r.Value <= r.Bar
}

// Ratio is how many times less than istiod's the value is, for people.
func (r Row) Ratio() string {
	switch {
	case r.Istiod == 0:
		return "–"
	case r.Value == 0:
		return "∞"
	case r.Value > r.Istiod:
		return Short(r.Value/r.Istiod) + " times"
	}
	return "1/" + Short(r.Istiod/r.Value)
}

// Short writes a value with three digits.
func Short(v float64) string {
	if v == 0 {
		return "0"
	}
	digits := 2 - int(math.Floor(math.Log10(math.Abs(v))))
	if digits < 0 {
		p := math.Pow10(-digits)
		return fmt.Sprintf("%.0f", math.Round(v/p)*p)
	}
	return strconv.FormatFloat(math.Round(v*math.Pow10(digits))/math.Pow10(digits), 'f', -1, 64)
}
