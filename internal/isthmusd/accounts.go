// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package isthmusd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/identity"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

// accountWait is how long a caller's account may be unknown: a new pod may be faster
// than our watch. accountPoll is how often it is looked for, since accounts change no
// proxy's configuration and are not announced.
const (
	accountWait = 2 * time.Second
	accountPoll = 50 * time.Millisecond
)

// accounts refuses whose ServiceAccount was deleted. In a directory of files pods
// need none.
func (d *Daemon) accounts() func(context.Context, identity.SPIFFE) error {
	if d.api == nil {
		return nil
	}
	return func(ctx context.Context, id identity.SPIFFE) error {
		key := model.Key{Namespace: id.Namespace, Name: id.ServiceAccount}
		if !d.catalog.Ready() {
			return fmt.Errorf("whether it has an account %w", authn.ErrUnavailable)
		}
		if d.store.Current().HasAccount(key) {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, accountWait)
		defer cancel()
		tick := time.NewTicker(accountPoll)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return errors.New("its ServiceAccount is gone")
			case <-tick.C:
				if d.store.Current().HasAccount(key) {
					return nil
				}
			}
		}
	}
}
