// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package ingest brings the world into the snapshot. It's the only watcher of
// isthmusd: Kubernetes and a directory of YAML are two sources of the same
// objects, and one set of pure functions turns an object into rows of the
// snapshot, with only the fields that are used.
//
//	Kube ──┐            ┌ convert: object → rows
//	       ├─▶ queue ──▶│ commit: rows → snapshot, one revision   ──▶ Sink
//	Dir  ──┘ (by object)└ while that runs, what arrives is gathered
//
// There is no debounce: the first change goes out at once, what comes while it
// is under way, to the last proxy, is taken together. Nothing is committed before
// every source has synced.
package ingest

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// Source delivers objects until its context ends.
type Source interface {
	// Attach gives the source its queue, where it says what to Expect from it: no
	// commit is made until all of that has been delivered once.
	Attach(q *Queue)
	// Run delivers. It returns when ctx ends or the source cannot go on.
	Run(ctx context.Context) error
}

// Options of Ingest.
type Options struct {
	Store *snapshot.Store
	// Sink gets every commit, in order, from one goroutine.
	Sink func(*snapshot.Snapshot, snapshot.Changes)
	Log  *slog.Logger
	// Rest tells how long the next commit has to wait from now on; what arrives
	// meanwhile is gathered. Nil is not at all. Called by the goroutine of Sink.
	Rest func() time.Duration
	// Metrics are registered here when set.
	Metrics prometheus.Registerer
	// Now tells the time by which watches stall; nil is the real one.
	Now func() time.Time
}

// Ingest commits what its sources deliver.
type Ingest struct {
	Options
	queue   *Queue
	sources []Source
	metrics *metrics
}

// New returns an Ingest of these sources.
func New(o Options, sources ...Source) *Ingest {
	q := newQueue(o.Log)
	if o.Now != nil {
		q.now = o.Now
	}
	for _, s := range sources {
		s.Attach(q)
	}
	return &Ingest{Options: o, queue: q, sources: sources, metrics: newMetrics(o.Metrics, q)}
}

// Queue is where sources deliver, and what knows how they are.
func (i *Ingest) Queue() *Queue { return i.queue }

// Run delivers until ctx ends or a source fails.
func (i *Ingest) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range i.sources {
		g.Go(func() error { return s.Run(ctx) })
	}
	g.Go(func() error { return i.commit(ctx) })
	return g.Wait()
}

func (i *Ingest) commit(ctx context.Context) error {
	rows, first := newRowSet(), true
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-i.queue.wake:
		}
		if !i.rest(ctx) {
			return nil
		}
		batch, synced := i.queue.take()
		if !synced || (len(batch) == 0 && !first) {
			continue
		}
		i.metrics.commits.Inc()
		i.metrics.objects.Add(float64(len(batch)))
		snap, changes := i.Store.Commit(func(x *snapshot.Txn) { rows.apply(x, batch) })
		if first || len(changes) > 0 {
			i.Sink(snap, changes)
		}
		first = false
	}
}

// rest waits as long as it is told, and tells whether ctx lasts.
func (i *Ingest) rest(ctx context.Context) bool {
	if i.Rest == nil {
		return true
	}
	for d := i.Rest(); d > 0; d = i.Rest() {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(d):
		}
	}
	return true
}
