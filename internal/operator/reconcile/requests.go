// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
)

// Every asks for each object of a kind, whatever was changed: for what all of them
// depend on. The list says which kind; it stays empty.
func Every(c client.Reader, kind client.ObjectList) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, _ client.Object) []reconcile.Request {
		list, ok := kind.DeepCopyObject().(client.ObjectList)
		if !ok {
			panic(fmt.Sprintf("%T is copied to another type", kind))
		}
		var out []reconcile.Request
		err := c.List(ctx, list)
		if err == nil {
			err = meta.EachListItem(list, func(o runtime.Object) error {
				at, err := meta.Accessor(o)
				if err == nil {
					out = append(out, reconcile.Request{NamespacedName: client.ObjectKey{Namespace: at.GetNamespace(), Name: at.GetName()}})
				}
				return err
			})
		}
		if err != nil {
			log.FromContext(ctx).Error(err, "list what may be concerned", "kind", fmt.Sprintf("%T", kind))
		}
		return out
	})
}

// Topology reads a MeshTopology for which something is to be kept: nil if it is
// gone, on its way out, or suspended.
func Topology(ctx context.Context, c client.Reader, key client.ObjectKey) (*v1alpha1.MeshTopology, error) {
	m := &v1alpha1.MeshTopology{}
	if err := c.Get(ctx, key, m); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	if m.DeletionTimestamp != nil || m.Spec.Suspend {
		return nil, nil
	}
	return m, nil
}
