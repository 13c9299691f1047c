// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/wait"
)

// AwaitEvent waits for an event with the reason and a message that is as wanted,
// about an object whose name begins so.
func (c *Client) AwaitEvent(ctx context.Context, namespace, kind, name, reason string, limit time.Duration, ok func(message string) bool) error {
	about := fields.SelectorFromSet(fields.Set{"involvedObject.kind": kind, "reason": reason}).String()
	var others []string
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, limit, true, func(ctx context.Context) (bool, error) {
		l, err := c.Typed.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: about})
		if err != nil {
			return false, err
		}
		others = others[:0]
		for i := range l.Items {
			if e := &l.Items[i]; strings.HasPrefix(e.InvolvedObject.Name, name) {
				if ok(e.Message) {
					return true, nil
				}
				others = append(others, e.Message)
			}
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("event %s of %s %s is not as wanted: %q: %w", reason, kind, name, others, err)
	}
	return nil
}
