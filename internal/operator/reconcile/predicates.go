// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package reconcile

import (
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
)

// SpecChanged passes what changes a spec, or begins a deletion; not status.
func SpecChanged() predicate.Predicate {
	return predicate.Or(predicate.GenerationChangedPredicate{}, predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			return (e.ObjectOld.GetDeletionTimestamp() == nil) != (e.ObjectNew.GetDeletionTimestamp() == nil) ||
				!slices.Equal(e.ObjectOld.GetFinalizers(), e.ObjectNew.GetFinalizers())
		},
	})
}

// ComesOrGoes passes what is created or deleted, not what changes.
func ComesOrGoes() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(event.UpdateEvent) bool { return false }}
}

// Component passes objects of these components.
func Component(names ...string) predicate.Predicate {
	of := func(o client.Object) bool { return slices.Contains(names, o.GetLabels()[v1alpha1.LabelComponent]) }
	is := predicate.NewPredicateFuncs(of)
	return predicate.Or(is, predicate.Funcs{
		CreateFunc: is.Create, DeleteFunc: is.Delete, GenericFunc: is.Generic,
		// One whose label somebody took away was ours.
		UpdateFunc: func(e event.UpdateEvent) bool { return of(e.ObjectOld) },
	})
}
