// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto"
	"io"
	"sync"
	"sync/atomic"
	"testing"
)

// busy counts how many sign at once.
type busy struct {
	crypto.Signer
	now, most atomic.Int32
	// full is closed when as many sign as may.
	full  chan struct{}
	limit int32
}

func (b *busy) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	n := b.now.Add(1)
	defer b.now.Add(-1)
	for m := b.most.Load(); n > m && !b.most.CompareAndSwap(m, n); m = b.most.Load() {
	}
	if n == b.limit {
		close(b.full)
	}
	<-b.full
	return nil, nil
}

func TestHandshakesSignForAsManyAtOnceAsThereArePlaces(t *testing.T) {
	t.Parallel()
	b := &busy{full: make(chan struct{}), limit: 3}
	p := paced{b, make(chan struct{}, 3)}
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() { _, _ = p.Sign(nil, nil, nil) })
	}
	all.Wait()
	b.limit = -1 // The gate stays open from here on.
	for range 100 {
		all.Go(func() { _, _ = p.Sign(nil, nil, nil) })
	}
	all.Wait()
	if got := b.most.Load(); got != 3 {
		t.Errorf("%d signed at once, want 3", got)
	}
}
