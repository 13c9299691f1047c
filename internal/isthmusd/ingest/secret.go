// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/tools/cache"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

// Secret reads a Secret that is not configuration, such as the CA's.
func (k *Kube) Secret(ctx context.Context, key model.Key) (map[string][]byte, error) {
	s, err := k.api.Secret(ctx, key.Namespace, key.Name)
	if err != nil {
		return nil, err
	}
	return s.Data, nil
}

// FollowSecret calls each with the Secret's data now and whenever it changes,
// until ctx ends. That it was deleted is not told.
func (k *Kube) FollowSecret(ctx context.Context, key model.Key, each func(data map[string][]byte)) error {
	sel := fields.OneTermEqualSelector("metadata.name", key.Name)
	lw := cache.NewListWatchFromClient(k.api.Group(""), "secrets", key.Namespace, sel)
	opts := cache.ReflectorOptions{Name: "isthmusd Secret " + key.String()}
	cache.NewReflectorWithOptions(lw, &corev1.Secret{}, secretStore(each), opts).RunWithContext(ctx)
	return nil
}

// secretStore is where a reflector puts the one Secret.
type secretStore func(map[string][]byte)

// Add tells of the Secret.
func (s secretStore) Add(obj any) error { return s.Update(obj) }

// Update tells of the Secret.
func (s secretStore) Update(obj any) error {
	if secret, ok := obj.(*corev1.Secret); ok {
		s(secret.Data)
	}
	return nil
}

// Delete tells nothing.
func (s secretStore) Delete(any) error { return nil }

// Replace tells of the Secret if there is one.
func (s secretStore) Replace(list []any, _ string) error {
	for _, obj := range list {
		if err := s.Update(obj); err != nil {
			return err
		}
	}
	return nil
}

// Resync has nothing to do.
func (s secretStore) Resync() error { return nil }
