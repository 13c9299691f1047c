// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

// members says which namespaces' Istio objects count. Others' do not: admission
// judges the objects of members and of the root namespace only, so whoever may
// write anywhere else must not open a host or take one over.
type members struct {
	everybody bool
	selectors []labels.Selector
}

// newMembers compiles selectors; none at all means everybody. One that does not
// compile selects nobody: the operator refuses such a spec.
func newMembers(selectors []metav1.LabelSelector) members {
	m := members{everybody: len(selectors) == 0}
	for i := range selectors {
		s, err := metav1.LabelSelectorAsSelector(&selectors[i])
		if err != nil {
			s = labels.Nothing()
		}
		m.selectors = append(m.selectors, s)
	}
	return m
}

func (m members) has(ns *model.Namespace) bool {
	return ns != nil && slices.ContainsFunc(m.selectors, func(s labels.Selector) bool { return s.Matches(labels.Set(ns.Labels)) })
}

// governed leaves those values whose namespace is a member or the root, and
// records what that depends on. The list given is not modified.
func governed[T any](v *View, list []T, namespace func(T) string) []T {
	if v.members().everybody {
		return list
	}
	outside := func(o T) bool { return !v.counts(namespace(o)) }
	if !slices.ContainsFunc(list, outside) {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), outside)
}

func (v *View) members() members {
	v.rec.read(Config, ByKey, "")
	return v.s.members
}

// counts tells whether Istio objects of the namespace count.
func (v *View) counts(namespace string) bool {
	if v.members().everybody || namespace == v.s.config.Namespace {
		return true
	}
	return v.s.members.has(v.Namespace(namespace))
}

// governedServices leaves all Kubernetes Services, which are just there, and the
// ServiceEntries that count.
func governedServices(v *View, list []*model.Service) []*model.Service {
	return governed(v, list, func(s *model.Service) string {
		if s.Object.Kind != model.KindServiceEntry {
			return v.s.config.Namespace
		}
		return s.Namespace
	})
}

func namespaceOf[T interface{ InNamespace() string }](o T) string { return o.InNamespace() }
