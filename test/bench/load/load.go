// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package load asks a control plane for what is not discovery: admission of pods
// and certificates, at a rate or as fast as it answers.
package load

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Answers are what came of a load.
type Answers struct {
	// Seconds that each answer took, from when it was due.
	Seconds []float64
	// Took is how long all of it went on.
	Took time.Duration
}

// atRate calls ask so many times a second, by a schedule that does not wait for
// answers: what is late counts from when it was due. At most width are under way.
func atRate(ctx context.Context, rate float64, n, width int, ask func(i int) error) (Answers, error) {
	begin := time.Now()
	due := func(i int) time.Time {
		if rate <= 0 {
			return time.Now()
		}
		return begin.Add(time.Duration(float64(i) / rate * float64(time.Second)))
	}
	out := Answers{Seconds: make([]float64, n)}
	next := make(chan int)
	var failed error
	var once sync.Once
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for range width {
		wg.Go(func() {
			for i := range next {
				at := due(i)
				time.Sleep(time.Until(at))
				if err := ask(i); err != nil {
					once.Do(func() { failed = fmt.Errorf("request %d: %w", i, err) })
					cancel()
				}
				out.Seconds[i] = time.Since(at).Seconds()
			}
		})
	}
feed:
	for i := range n {
		select {
		case next <- i:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	wg.Wait()
	out.Took = time.Since(begin)
	if failed == nil {
		failed = context.Cause(ctx)
	}
	return out, failed
}
