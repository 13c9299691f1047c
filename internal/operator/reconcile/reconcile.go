// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package reconcile turns the outcome of a reconciliation into what the queue
// does next. The error's class carries the policy: waiting comes back after a
// while, a conflict at once and in silence, anything else with growing delay.
package reconcile

import (
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
)

// Resync is how often an object is looked at when nothing tells of a change: the
// safety net for what is not watched.
const Resync = 10 * time.Minute

// Waiting is the error of something that only takes time.
type Waiting struct {
	For   string
	After time.Duration
}

func (w Waiting) Error() string { return "waiting for " + w.For }

// Wait makes a Waiting.
func Wait(after time.Duration, format string, args ...any) error {
	return Waiting{For: fmt.Sprintf(format, args...), After: after}
}

// Result says when to come back.
func Result(err error) (ctrl.Result, error) {
	var w Waiting
	switch {
	case err == nil:
		return ctrl.Result{RequeueAfter: Resync}, nil
	case errors.As(err, &w):
		return ctrl.Result{RequeueAfter: w.After}, nil
	case apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: 100 * time.Millisecond}, nil
	}
	return ctrl.Result{}, err
}
