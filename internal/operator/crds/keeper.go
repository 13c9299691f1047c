// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package crds

import (
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// Keeper ensures the CRDs at the leader's start and from time to time. It is a
// Runnable of a manager.
type Keeper struct {
	// Client reads past the cache: CRDs are large, and looked at seldom.
	Client client.Client
	Mode   Mode
	Every  time.Duration
}

// retry is how soon a failure is tried again.
const retry = 5 * time.Second

// Start works until the context ends.
func (k Keeper) Start(ctx context.Context) error {
	for {
		wait := k.Every
		if err := Ensure(ctx, k.Client, k.Mode); err != nil && ctx.Err() == nil {
			log.FromContext(ctx).Error(err, "Istio's CRDs")
			wait = retry
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// NeedLeaderElection is true: one replica writes.
func (k Keeper) NeedLeaderElection() bool { return true }
