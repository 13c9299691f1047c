// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package memory keeps what a program holds near what it needs.
//
// Go collects garbage when as much again has been allocated as was alive, and
// gives free pages back by and by. After a burst (all sources read, a thousand
// proxies connected) a program that comes to rest would keep for good what only
// the burst needed. Release waits for that rest and collects then.
package memory

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// every is how often Release looks whether there is rest; one look costs
	// microseconds.
	every = 500 * time.Millisecond
	// calm is what is allocated between two looks at most while there is rest.
	calm = 1 << 20
	// least is the garbage that is worth a collection, which costs a millisecond
	// for each megabyte that is alive.
	least = 16 << 20
)

// Release gives memory back whenever the program comes to rest, until ctx ends.
func Release(ctx context.Context) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last, released uint64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := read()
		if due(now, last, released) {
			debug.FreeOSMemory()
			now = read()
			released = now.allocated
		}
		last = now.allocated
	}
}

// sample of the heap.
type sample struct {
	// allocated counts bytes since the program began.
	allocated uint64
	// alive is what the last collection found in use.
	alive uint64
}

func read() sample {
	of := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(of)
	return sample{of[0].Value.Uint64(), of[1].Value.Uint64()}
}

// due tells whether there is rest, and enough was allocated since the last release
// to be worth another.
func due(now sample, last, released uint64) bool {
	return now.allocated-last < calm && now.allocated-released > max(least, now.alive/2)
}
