// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/isthmus-mesh/isthmus/test/bench/measure"
)

// brief is a step's figures in a line. They are shown and not judged: how fast
// the machine is nobody knows.
func brief(s *measure.Step) string {
	late := ""
	if s.Seconds != nil {
		late = fmt.Sprintf("p50 %5.1f ms, p99 %5.1f ms", s.Seconds.P50*1e3, s.Seconds.P99*1e3)
	}
	sent := int64(0)
	for _, p := range s.Pushed {
		sent += p.Bytes
	}
	return fmt.Sprintf("%-14s CPU %6.1f ms  %-28s %9.1f KB pushed  RSS %.0f MiB", s.Name, s.CPU*1e3, late, float64(sent)/1e3, s.After.RSS)
}
