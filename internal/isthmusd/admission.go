// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package isthmusd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/isthmus-mesh/isthmus/internal/inject"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/validate"
)

// admission tells the webhooks what holds now; it implements webhook.Source.
type admission struct {
	store    *snapshot.Store
	injector atomic.Pointer[injector]

	mu sync.Mutex
	// next is closed with the next commit.
	next chan struct{}
}

type injector struct {
	*inject.Injector
	err error
}

func newAdmission(s *snapshot.Store) *admission {
	return &admission{store: s, next: make(chan struct{})}
}

// update takes over a commit.
func (a *admission) update(s *snapshot.Snapshot, changes snapshot.Changes) {
	_, config := changes[snapshot.Read{Table: snapshot.Config}]
	_, mesh := changes[snapshot.Read{Table: snapshot.Mesh}]
	if config || mesh || a.injector.Load() == nil {
		in, err := inject.New(inject.FromTopology(s.Config(), s.Mesh()))
		a.injector.Store(&injector{in, err})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.next)
	a.next = make(chan struct{})
}

// Injector in force.
func (a *admission) Injector() (*inject.Injector, error) {
	in := a.injector.Load()
	if in == nil {
		return nil, errors.New("the configuration has not synced yet")
	}
	return in.Injector, in.err
}

// Rules of validation in force.
func (a *admission) Rules() validate.Rules {
	s := a.store.Current()
	return validate.Rules{RootNamespace: s.Config().Namespace, Reserved: s.OwnAddresses()}
}

// NamespaceLabels waits for a namespace that is too new to be known, since a pod
// may be made right after it.
func (a *admission) NamespaceLabels(ctx context.Context, name string) (map[string]string, error) {
	for {
		a.mu.Lock()
		next := a.next
		a.mu.Unlock()
		if n := a.store.Current().Namespace(name); n != nil {
			return n.Labels, nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return nil, fmt.Errorf("namespace %s is not known: %w", name, ctx.Err())
		}
	}
}
