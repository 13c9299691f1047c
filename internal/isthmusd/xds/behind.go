// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"slices"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

const (
	// A response that is unanswered for farBehind, or through more revisions than
	// manyRevisions, is let go: a proxy that is stuck must not keep sets alive that
	// everybody else has left behind.
	farBehind     = 10 * time.Second
	manyRevisions = 8
	// fewFlights are remembered one by one; of more, the oldest count as one.
	fewFlights = 8
)

// letGo drops what old flights refer to, but for hashes of what they brought.
// Flights that others wait for are young and stay as they are.
func (w *watch) letGo(now time.Time, revision uint64) {
	for i := range w.flights {
		f := &w.flights[i]
		if f.late && !f.gone && (!now.Before(f.sentAt.Add(farBehind)) || f.state != nil && f.state.Revision+manyRevisions < revision) {
			f.letGo()
		}
	}
	for len(w.flights) > fewFlights && w.flights[0].gone && w.flights[1].gone {
		old := w.flights[0]
		w.flights = slices.Delete(w.flights, 0, 1)
		into := &w.flights[0]
		into.versions = append(into.versions, old.versions...)
		into.removed = append(into.removed, old.removed...)
		into.sortVersions()
	}
}

func (f *flight) letGo() {
	f.versions = make([]uint64, 0, len(f.added))
	for _, r := range f.added {
		f.versions = append(f.versions, r.Version)
	}
	f.sortVersions()
	f.gone = true
	f.added, f.state, f.before, f.step, f.holds = nil, nil, nil, nil, nil
}

func (f *flight) sortVersions() {
	slices.Sort(f.versions)
	f.versions = slices.Compact(f.versions)
	slices.Sort(f.removed)
	f.removed = slices.Compact(f.removed)
}

// recall finds what a flight brought that was let go: as much of it as nothing
// has replaced since, which is all that its answer can still be about.
func (f *flight) recall(sent *resource.Set) {
	if !f.gone {
		return
	}
	for _, r := range sent.List() {
		if _, ok := slices.BinarySearch(f.versions, r.Version); ok {
			f.added = append(f.added, r)
		}
	}
}

// letGoAt is when the next flight is to be let go.
func (w *watch) letGoAt() (time.Time, bool) {
	for _, f := range w.flights {
		if f.late && !f.gone {
			return f.sentAt.Add(farBehind), true
		}
	}
	return time.Time{}, false
}
