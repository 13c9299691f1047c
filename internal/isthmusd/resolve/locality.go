// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// localityPolicy is how near and far endpoints share the load of a destination.
// It is read by builders of assignments only, with the proxy's own locality.
type localityPolicy struct {
	v    *snapshot.View
	spec *networking.LocalityLoadBalancerSetting
	// failover is on where failing endpoints are found out: without ejection a
	// near endpoint that fails would never make way for a far one.
	failover bool
}

func newLocalityPolicy(v *snapshot.View, p trafficPolicy) localityPolicy {
	return localityPolicy{v: v, spec: localitySetting(v, p), failover: p.outlier != nil}
}

// localitySetting is the rule's, else the mesh's; nil where it is off.
func localitySetting(v *snapshot.View, p trafficPolicy) *networking.LocalityLoadBalancerSetting {
	s := p.loadBalancer.GetLocalityLbSetting()
	if s == nil {
		s = v.Mesh().GetLocalityLbSetting()
	}
	if e := s.GetEnabled(); e != nil && !e.GetValue() {
		return nil
	}
	return s
}

// localityWeighted tells whether clusters weigh localities: needed by both
// distribution and failover.
func localityWeighted(v *snapshot.View, p trafficPolicy) bool {
	s := localitySetting(v, p)
	return s != nil && (p.outlier != nil || len(s.GetDistribute()) > 0)
}

// priority of an endpoint for the proxy: 0 is the nearest.
func (l localityPolicy) priority(e model.Endpoint) uint32 {
	if l.spec == nil || !l.failover || len(l.spec.GetDistribute()) > 0 {
		return 0
	}
	if labels := l.spec.GetFailoverPriority(); len(labels) > 0 {
		return l.byLabels(labels, e)
	}
	own := l.v.Locality()
	if own == "" {
		return 0
	}
	mine, theirs := strings.Split(own+"//", "/"), strings.Split(e.Locality+"//", "/")
	for depth := range 3 {
		if mine[depth] != theirs[depth] {
			return l.farther(uint32(3-depth), mine[0], theirs[0])
		}
	}
	return 0
}

// farther refines the priority of another region by the configured failover.
func (l localityPolicy) farther(priority uint32, own, other string) uint32 {
	if priority < 3 {
		return priority
	}
	for _, f := range l.spec.GetFailover() {
		if f.GetFrom() == own && f.GetTo() != other {
			return priority + 1
		}
	}
	return priority
}

// byLabels counts how many of the labels agree, in order, until one does not.
func (l localityPolicy) byLabels(labels []string, e model.Endpoint) uint32 {
	for i, label := range labels {
		key, want, fixed := strings.Cut(label, "=")
		if !fixed {
			want = l.own(key)
		}
		if labelOf(key, e.Labels, e.Locality) != want {
			return uint32(len(labels) - i)
		}
	}
	return 0
}

func (l localityPolicy) own(key string) string {
	if depth := localityDepth(key); depth >= 0 {
		return labelOf(key, nil, l.v.Locality())
	}
	return l.v.ProxyLabel(key)
}

func labelOf(key string, labels map[string]string, locality string) string {
	if depth := localityDepth(key); depth >= 0 {
		return strings.Split(locality+"//", "/")[depth]
	}
	return labels[key]
}

// localityDepth is the part of a locality that a well-known label holds, or -1.
func localityDepth(key string) int {
	return slices.Index([]string{
		"topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone",
	}, key)
}

// finish closes gaps between priorities, which Envoy does not allow, and sets the
// weights that a distribution asks for.
func (l localityPolicy) finish(ls []ir.Locality) []ir.Locality {
	var used []uint32
	for _, x := range ls {
		if !slices.Contains(used, x.Priority) {
			used = append(used, x.Priority)
		}
	}
	slices.Sort(used)
	for i := range ls {
		ls[i].Priority = uint32(slices.Index(used, ls[i].Priority))
	}
	return l.distribute(ls)
}

// distribute spreads load by the first distribution that means the proxy's
// locality. A share is divided among the localities that it covers by the number
// of their endpoints; who has no share gets nothing.
func (l localityPolicy) distribute(ls []ir.Locality) []ir.Locality {
	if l.spec == nil || len(l.spec.GetDistribute()) == 0 {
		return ls
	}
	own := l.v.Locality()
	for _, d := range l.spec.GetDistribute() {
		if !localityCovers(d.GetFrom(), own) {
			continue
		}
		total := map[string]uint32{}
		for _, x := range ls {
			total[target(d.GetTo(), x)] += x.Weight
		}
		var out []ir.Locality
		for _, x := range ls {
			if t := target(d.GetTo(), x); t != "" && total[t] > 0 {
				x.Weight = max(d.GetTo()[t]*x.Weight*100/total[t], 1)
				out = append(out, x)
			}
		}
		return out
	}
	return ls
}

// target is the most specific locality of a distribution that covers another.
func target(to map[string]uint32, l ir.Locality) string {
	best := ""
	for pattern := range to {
		if localityCovers(pattern, l.Region+"/"+l.Zone+"/"+l.SubZone) && len(pattern) > len(best) {
			best = pattern
		}
	}
	return best
}

// localityCovers compares region/zone/subzone, of which a pattern may leave out
// the end or write stars.
func localityCovers(pattern, place string) bool {
	if pattern == "" {
		return false
	}
	parts := strings.Split(place+"//", "/")
	for i, p := range strings.Split(pattern, "/") {
		if p != "*" && (i > 2 || p != parts[i]) {
			return false
		}
	}
	return true
}
