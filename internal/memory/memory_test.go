// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"runtime"
	"testing"
)

func TestReleaseIsDueAtRestAfterABurst(t *testing.T) {
	const mib = 1 << 20
	k := Keeper{Calm: mib, Least: 16 * mib}
	for name, tc := range map[string]struct {
		now            sample
		last, released uint64
		want           bool
	}{
		"at rest after a burst":            {now: sample{200 * mib, 60 * mib}, last: 200 * mib, want: true},
		"in the middle of it":              {now: sample{200 * mib, 60 * mib}, last: 150 * mib},
		"at rest, and it was released":     {now: sample{200 * mib, 60 * mib}, last: 200 * mib, released: 199 * mib},
		"little garbage beside what lives": {now: sample{220 * mib, 60 * mib}, last: 220 * mib, released: 195 * mib},
		"little garbage beside nothing":    {now: sample{15 * mib, 0}, last: 15 * mib},
	} {
		t.Run(name, func(t *testing.T) {
			if got := k.due(tc.now, tc.last, tc.released); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestReadSeesWhatIsAllocated(t *testing.T) {
	before := read()
	block := make([]byte, 8<<20)
	runtime.GC()
	after := read()
	runtime.KeepAlive(block)
	if after.allocated-before.allocated < 8<<20 || after.alive < 8<<20 {
		t.Errorf("before %+v, after 8 MiB %+v", before, after)
	}
}
