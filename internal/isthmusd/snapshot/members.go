// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"slices"
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// governed leaves those values whose namespace is a member or the root, and
// records what that depends on. Admission judges the objects of these only, so
// whoever may write anywhere else must not open a host or take one over. The list
// given is not modified.
func governed[T any](v *View, list []T, namespace func(T) string) []T {
	if v.members().Everybody() {
		return list
	}
	outside := func(o T) bool { return !v.counts(namespace(o)) }
	if !slices.ContainsFunc(list, outside) {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), outside)
}

// compiled is what is made of a configuration once.
type compiled struct {
	members   topology.Members
	allowance topology.Allowance
}

// compile leaves out what does not compile: such selectors select nobody, such
// flows allow nothing. The operator refuses such a spec.
func compile(c topology.Config) compiled {
	m, _ := topology.CompileMembers(c.Members)
	a, _ := topology.CompileAllowance(c.Allowance)
	return compiled{members: m, allowance: a}
}

// Reach is what the allowance lets the proxy call; false where it restricts nobody.
// Only the flows are recorded: proxies of all namespaces that have the same share
// what is built.
func (v *View) Reach() (topology.Reach, bool) {
	v.rec.read(Config, ByKey, "")
	if !v.s.allowance.Restricts() {
		return topology.Reach{}, false
	}
	var flows []int
	for s := range strings.FieldsSeq(v.ask(AttributeFlows, "")) {
		if i, err := strconv.Atoi(s); err == nil {
			flows = append(flows, i)
		}
	}
	return v.s.allowance.Reach(flows, v.ProxySelected), true
}

// flows is the answer to AttributeFlows.
func (s *Snapshot) flows(namespace string) string {
	at := topology.Place{Namespace: namespace}
	if ns, ok := s.namespaces.get(namespace); ok {
		at.Labels = ns.Labels
	}
	var b strings.Builder
	for _, i := range s.allowance.FlowsFrom(at) {
		b.WriteString(strconv.Itoa(i) + " ")
	}
	return b.String()
}

func (v *View) members() topology.Members {
	v.rec.read(Config, ByKey, "")
	return v.s.members
}

// counts tells whether Istio objects of the namespace count.
func (v *View) counts(namespace string) bool {
	if v.members().Everybody() || namespace == v.s.config.Namespace {
		return true
	}
	ns := v.Namespace(namespace)
	return ns != nil && v.s.members.Has(ns.Labels)
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
