// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"maps"
	"slices"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

// trafficPolicy is what DestinationRules come to for one subset and port.
type trafficPolicy struct {
	loadBalancer *networking.LoadBalancerSettings
	pool         *networking.ConnectionPoolSettings
	outlier      *networking.OutlierDetection
	tls          *networking.ClientTLSSettings
	// subset's labels; found tells whether there is such a subset.
	labels map[string]string
	found  bool
	// rule that has it, for people, and for the namespace of its credentials.
	rule *model.DestinationRule
}

// rules finds the DestinationRules for a host as this proxy's client side sees
// them: its own namespace's before the service's before the root's; of one
// namespace those with the most specific host, the oldest first.
func (s *scope) rules(host string, serviceNS string) []*model.DestinationRule {
	all := s.v.DestinationRulesByHost(host)
	for _, ns := range []string{s.ownAmong(all, serviceNS), serviceNS, s.root} {
		if found := s.rulesOf(all, ns); len(found) > 0 {
			return found
		}
	}
	return nil
}

// ownAmong is the proxy's namespace if it has rules of its own here that could
// win: none of the service's, which come next anyway, and none of the root's,
// which are for everybody and not above everybody's own.
func (s *scope) ownAmong(rules []*model.DestinationRule, serviceNS string) string {
	for _, d := range rules {
		if d.Namespace != serviceNS && d.Namespace != s.root && s.in(d.Namespace) {
			return d.Namespace
		}
	}
	return ""
}

func (s *scope) rulesOf(all []*model.DestinationRule, ns string) []*model.DestinationRule {
	var general, selected []*model.DestinationRule
	domain := s.v.Config().ClusterDomain
	host := ""
	for _, d := range all {
		if d.Namespace != ns || !exported(d.Spec.GetExportTo(), s.v.Mesh().GetDefaultDestinationRuleExportTo(), ns, s.in) {
			continue
		}
		full := fullName(d.Spec.GetHost(), d.Namespace, domain)
		if host == "" {
			host = full
		}
		if full != host {
			break
		}
		labels := d.Spec.GetWorkloadSelector().GetMatchLabels()
		switch {
		case len(labels) == 0:
			general = append(general, d)
		case s.behalf != "":
			// The gateway cannot know which workloads of the namespace call it.
		case s.in(ns) && s.v.ProxyMatches(labels):
			selected = append(selected, d)
		}
	}
	return append(selected, general...)
}

// policy merges what holds for a cluster: the rule, its port, the subset, the
// subset's port. Rules with one host are merged: the oldest's policy counts, and
// of a subset the oldest definition.
func (s *scope) policy(k subsetKey) trafficPolicy {
	var out trafficPolicy
	ns := ""
	if svc := s.service(k.host); svc != nil {
		ns = svc.Namespace
	}
	rules := s.rules(k.host, ns)
	for _, d := range rules {
		if d.Spec.GetTrafficPolicy() != nil {
			out.rule = d
			out.set(d.Spec.GetTrafficPolicy(), k.port)
			break
		}
	}
	if k.subset == "" {
		out.found = true
		return out
	}
	for _, d := range rules {
		for _, sub := range d.Spec.GetSubsets() {
			if sub.GetName() == k.subset {
				out.found, out.labels, out.rule = true, sub.GetLabels(), d
				out.set(sub.GetTrafficPolicy(), k.port)
				return out
			}
		}
	}
	return out
}

// set overrides fields by those that a policy has; one for the port replaces all.
func (t *trafficPolicy) set(p *networking.TrafficPolicy, port uint32) {
	if p == nil {
		return
	}
	if p.GetLoadBalancer() != nil {
		t.loadBalancer = p.GetLoadBalancer()
	}
	if p.GetConnectionPool() != nil {
		t.pool = p.GetConnectionPool()
	}
	if p.GetOutlierDetection() != nil {
		t.outlier = p.GetOutlierDetection()
	}
	if p.GetTls() != nil {
		t.tls = p.GetTls()
	}
	for _, l := range p.GetPortLevelSettings() {
		if l.GetPort().GetNumber() == port {
			t.loadBalancer, t.pool = l.GetLoadBalancer(), l.GetConnectionPool()
			t.outlier, t.tls = l.GetOutlierDetection(), l.GetTls()
			return
		}
	}
}

// subsets lists the names of a service's subsets.
func (s *scope) subsets(svc *model.Service) []string {
	names := map[string]bool{}
	for _, d := range s.rules(svc.Host, svc.Namespace) {
		for _, sub := range d.Spec.GetSubsets() {
			if sub.GetName() != "" {
				names[sub.GetName()] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}
