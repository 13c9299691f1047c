// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"slices"
	"testing"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// oneChanged is two sets of n clusters, of which one differs.
func oneChanged(n int) (from, to *resource.Set) {
	from = state(1, benchState()...).Sets[resource.Cluster]
	from = resource.NewSet(from.List()[:n])
	next := slices.Clone(from.List())
	changed := *next[n/2]
	changed.Version++
	next[n/2] = &changed
	return from, resource.NewSet(next)
}

// answer is what each stream does for itself with resources that are encoded.
func answer(d *diff) *response {
	return message(Delta, head{version: "7", url: resource.Cluster.URL(), nonce: "12"}, d.payload(Delta))
}

func BenchmarkDiff(b *testing.B) {
	from, to := oneChanged(benchServices)
	b.ReportAllocs()
	for b.Loop() {
		newDiff(from, to)
	}
}

// BenchmarkSend is a first configuration's message for one more stream.
func BenchmarkSend(b *testing.B) {
	_, to := oneChanged(benchServices)
	d := newDiff(resource.NewSet(nil), to)
	codec := newCodec()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := codec.Marshal(answer(d)); err != nil {
			b.Fatal(err)
		}
	}
}

// TestWhatAStreamAllocates holds the work for each stream against the number of
// resources: there must be none that grows with it.
func TestWhatAStreamAllocates(t *testing.T) {
	sending := func(n int) float64 {
		_, to := oneChanged(n)
		d := newDiff(resource.NewSet(nil), to)
		d.payload(Delta)
		return testing.AllocsPerRun(100, func() { answer(d) })
	}
	if few, many := sending(10), sending(benchServices); few != many || many > 4 {
		t.Errorf("a message takes %v allocations with 10 resources and %v with %d, want the same, at most 4", few, many, benchServices)
	}
	comparing := func(n int) float64 {
		from, to := oneChanged(n)
		return testing.AllocsPerRun(100, func() { newDiff(from, to) })
	}
	if few, many := comparing(10), comparing(benchServices); few != many || many > 2 {
		t.Errorf("finding one change takes %v allocations among 10 and %v among %d, want the same, at most 2", few, many, benchServices)
	}
}
