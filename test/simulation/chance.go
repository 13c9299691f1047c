// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"fmt"
	"slices"
)

// dice decide what only chance decides, by a script: the choices of an earlier
// run, with the last one that has another side turned over. So a walk is written
// as if there were no chance, and runs once for each way it can go.
type dice struct {
	script []int
	made   []throw
	share  float64
}

type throw struct{ picked, sides int }

// choose picks one of the options that weigh anything; at least one must.
func (d *dice) choose(weights []uint64) int {
	var sides []int
	var total float64
	for i, w := range weights {
		if w > 0 {
			sides = append(sides, i)
			total += float64(w)
		}
	}
	if len(sides) == 0 {
		panic("a choice among nothing")
	}
	picked := 0
	if n := len(d.made); n < len(d.script) {
		picked = d.script[n]
	}
	d.made = append(d.made, throw{picked, len(sides)})
	d.share *= float64(weights[sides[picked]]) / total
	return sides[picked]
}

// maxOutcomes bounds what a configuration can make of one request.
const maxOutcomes = 10000

// explore runs f once for every combination of choices, the likelier sides in
// their configured order.
func explore(f func(*dice)) error {
	var script []int
	for n := 0; ; n++ {
		if n == maxOutcomes {
			return fmt.Errorf("more than %d outcomes", maxOutcomes)
		}
		d := &dice{script: script, share: 1}
		f(d)
		last := len(d.made) - 1
		for last >= 0 && d.made[last].picked == d.made[last].sides-1 {
			last--
		}
		if last < 0 {
			return nil
		}
		script = slices.Clone(script[:min(last, len(script))])
		for _, t := range d.made[len(script):last] {
			script = append(script, t.picked)
		}
		script = append(script, d.made[last].picked+1)
	}
}
