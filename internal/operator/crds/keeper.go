// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package crds

import (
	"context"
	"fmt"
	"time"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// Keeper ensures the CRDs at the leader's start and from time to time. It is a
// Runnable of a manager.
type Keeper struct {
	// client reads past any cache: CRDs are large, and looked at seldom.
	client client.Client
	mode   Mode
}

const (
	// every is how often the CRDs are looked at.
	every = 10 * time.Minute
	// retry is how soon a failure is tried again.
	retry = 5 * time.Second
)

// NewKeeper makes a Keeper that talks to this API server.
func NewKeeper(config *rest.Config, mode Mode) (Keeper, error) {
	s := runtime.NewScheme()
	if err := apiextensions.AddToScheme(s); err != nil {
		return Keeper{}, fmt.Errorf("build the scheme: %w", err)
	}
	c, err := client.New(config, client.Options{Scheme: s})
	if err != nil {
		return Keeper{}, fmt.Errorf("make a client: %w", err)
	}
	return Keeper{client: c, mode: mode}, nil
}

// Start works until the context ends.
func (k Keeper) Start(ctx context.Context) error {
	for {
		wait := every
		if err := Ensure(ctx, k.client, k.mode); err != nil && ctx.Err() == nil {
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
