// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"errors"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Members are compiled member selectors. The zero value selects everybody, as
// no selectors do.
type Members struct {
	selectors []labels.Selector
}

// CompileMembers compiles Config.Members. One that does not compile selects
// nobody, and the error names it; the Members can be used all the same.
func CompileMembers(selectors []metav1.LabelSelector) (Members, error) {
	var m Members
	var errs []error
	for i := range selectors {
		s, err := metav1.LabelSelectorAsSelector(&selectors[i])
		if err != nil {
			s = labels.Nothing()
			errs = append(errs, fmt.Errorf("members[%d]: %w", i, err))
		}
		m.selectors = append(m.selectors, s)
	}
	return m, errors.Join(errs...)
}

// Everybody tells whether there are no selectors.
func (m Members) Everybody() bool { return len(m.selectors) == 0 }

// Has tells whether a namespace with these labels is a member.
func (m Members) Has(namespace map[string]string) bool {
	return m.Everybody() || slices.ContainsFunc(m.selectors, func(s labels.Selector) bool { return s.Matches(labels.Set(namespace)) })
}
