// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package memory keeps what a program holds near what it needs.
//
// Go collects garbage when as much again has been allocated as was alive, and
// gives free pages back by and by. After a burst (all sources read, a thousand
// proxies connected) a program that comes to rest would keep for good what only
// the burst needed. A Keeper waits for that rest and gives it back then.
package memory

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Keeper gives memory back whenever a program comes to rest.
type Keeper struct {
	// Every is how often it looks whether there is rest; a look costs microseconds.
	Every time.Duration
	// Calm is what is allocated between two looks at most while there is rest.
	Calm uint64
	// Least is the garbage, in bytes, that is worth a collection, which costs a
	// millisecond for each megabyte that is alive.
	Least uint64
}

// Run keeps memory small until ctx ends: garbage goes, and the code that only the
// burst ran.
func (k Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(k.Every)
	defer tick.Stop()
	var last, released uint64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := read()
		if k.due(now, last, released) {
			debug.FreeOSMemory()
			// Without it the program is only larger, and it has no one to tell.
			_ = forgetCode()
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
func (k Keeper) due(now sample, last, released uint64) bool {
	return now.allocated-last < k.Calm && now.allocated-released > max(k.Least, now.alive/2)
}
