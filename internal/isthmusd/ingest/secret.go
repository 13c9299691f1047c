// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
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

// ConfigMap reads a ConfigMap that is not configuration; nil if there is none.
func (k *Kube) ConfigMap(ctx context.Context, key model.Key) (*corev1.ConfigMap, error) {
	return k.api.ConfigMap(ctx, key.Namespace, key.Name)
}

// FollowSecret calls each with the Secret's data now and whenever it changes,
// until ctx ends. That it was deleted is not told.
func (k *Kube) FollowSecret(ctx context.Context, key model.Key, each func(data map[string][]byte)) error {
	k.followOne(ctx, "secrets", key, &corev1.Secret{}, func(obj any) {
		if s, ok := obj.(*corev1.Secret); ok {
			each(s.Data)
		}
	})
	return nil
}

// FollowConfigMap calls each with the ConfigMap now and whenever it changes, nil
// while there is none, until ctx ends.
func (k *Kube) FollowConfigMap(ctx context.Context, key model.Key, each func(*corev1.ConfigMap)) error {
	k.followOne(ctx, "configmaps", key, &corev1.ConfigMap{}, func(obj any) {
		m, _ := obj.(*corev1.ConfigMap)
		each(m)
	})
	return nil
}

func (k *Kube) followOne(ctx context.Context, resource string, key model.Key, kind runtime.Object, each oneObject) {
	sel := fields.OneTermEqualSelector("metadata.name", key.Name)
	lw := cache.NewListWatchFromClient(k.api.Group(""), resource, key.Namespace, sel)
	opts := cache.ReflectorOptions{Name: "isthmusd " + resource + " " + key.String()}
	cache.NewReflectorWithOptions(lw, kind, each, opts).RunWithContext(ctx)
}

// oneObject is where a reflector puts the one object, nil when it is gone.
type oneObject func(obj any)

// Add tells of the object.
func (o oneObject) Add(obj any) error { return o.Update(obj) }

// Update tells of the object.
func (o oneObject) Update(obj any) error {
	o(obj)
	return nil
}

// Delete tells that there is none.
func (o oneObject) Delete(any) error { return o.Update(nil) }

// Replace tells of the object, or that there is none.
func (o oneObject) Replace(list []any, _ string) error {
	if len(list) == 0 {
		return o.Update(nil)
	}
	return o.Update(list[0])
}

// Resync has nothing to do.
func (o oneObject) Resync() error { return nil }
