// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"k8s.io/utils/clock"
)

// Drain says how long a proxy that is to end goes on.
type Drain struct {
	// Min is spent in any case, as peers learn late that we go.
	Min time.Duration
	// Max ends the wait for connections to end.
	Max   time.Duration
	Clock clock.WithTicker
}

// pollEvery is how often connections are counted.
const pollEvery = 200 * time.Millisecond

// connections are the gauges of listeners that carry the mesh's traffic.
const connections = "^listener\\..*\\.downstream_cx_active$"

var own = regexp.MustCompile(`^listener\.(admin|stats|health)\.`)

// Connector is what Run needs of an Admin.
type Connector interface {
	DrainListeners(ctx context.Context) error
	Stats(ctx context.Context, filter string) (map[string]int64, error)
}

// Run drains: it returns when Min has passed and no connection is left, when Max
// has passed, or when ctx ends.
func (d Drain) Run(ctx context.Context, a Connector) error {
	if err := a.DrainListeners(ctx); err != nil {
		return fmt.Errorf("drain listeners: %w", err)
	}
	start := d.Clock.Now()
	tick := d.Clock.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		spent := d.Clock.Since(start)
		if spent >= max(d.Min, d.Max) {
			return nil
		}
		if spent >= d.Min {
			n, err := active(ctx, a)
			if err != nil {
				return err
			}
			if n == 0 {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C():
		}
	}
}

// active counts connections from applications and peers. A listener counts its
// connections for itself and for each worker; only the former are added up.
func active(ctx context.Context, a Connector) (int64, error) {
	stats, err := a.Stats(ctx, connections)
	if err != nil {
		return 0, fmt.Errorf("count connections: %w", err)
	}
	var n int64
	for name, v := range stats {
		if !own.MatchString(name) && !strings.Contains(name, ".worker_") {
			n += v
		}
	}
	return n, nil
}
