// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package journey is the main job, told as flows: who calls whom, what should
// come of it in each topology, what came of it, and how that is known. The demo
// prints them as tables; the end-to-end tests assert them.
package journey

import (
	"context"
	"fmt"
	"strings"
)

// Topologies in the order in which the demo walks them.
const (
	IngressOnly   = "IngressOnly"
	SidecarEgress = "SidecarEgress"
	EgressGateway = "EgressGateway"
)

// Flow is one row of the table.
type Flow struct {
	// Name says who calls whom.
	Name string
	// Expect says what should come of it, as a person reads it.
	Expect string
	// Probe makes the call and reports.
	Probe func(context.Context, *Env) Observation
}

// Observation is what came of a flow.
type Observation struct {
	// OK tells whether it is what was expected.
	OK bool
	// Seen says what happened, Known how that is known.
	Seen, Known string
}

// Row is a flow with its observation.
type Row struct {
	Flow
	Observation
}

// Run makes every call of a topology, one after the other.
func Run(ctx context.Context, e *Env, topology string) []Row {
	var rows []Row
	for _, f := range Flows(topology) {
		rows = append(rows, Row{Flow: f, Observation: f.Probe(ctx, e)})
	}
	return rows
}

// Flows lists what a topology promises.
func Flows(topology string) []Flow {
	flows := append(entering(), inside()...)
	switch topology {
	case IngressOnly:
		return append(flows, leavingFreely()...)
	case SidecarEgress:
		return append(flows, leavingByAllowList()...)
	default:
		return append(flows, leavingByGateway()...)
	}
}

// bad makes an observation of something that could not be observed.
func bad(err error) Observation {
	return Observation{Seen: short(err.Error()), Known: "error"}
}

// short cuts a text to what fits a table.
func short(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 90 {
		return s[:87] + "..."
	}
	return s
}

// judge fills OK from a condition.
func judge(ok bool, known, seen string, args ...any) Observation {
	return Observation{OK: ok, Seen: short(fmt.Sprintf(seen, args...)), Known: short(known)}
}
