// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// portRange is some ports of a protocol; without a protocol it is everything that
// can be sent.
type portRange struct {
	protocol string
	lo, hi   int
}

const lastPort = 65535

// ports are the ranges of a rule. A named port is whatever number the destination
// gives it.
func ports(in []networkingv1.NetworkPolicyPort) []portRange {
	if len(in) == 0 {
		return []portRange{{}}
	}
	var out []portRange
	for _, p := range in {
		r := portRange{protocol: string(corev1.ProtocolTCP), lo: 1, hi: lastPort}
		if p.Protocol != nil {
			r.protocol = string(*p.Protocol)
		}
		if p.Port != nil && p.Port.IntVal > 0 {
			r.lo, r.hi = int(p.Port.IntVal), int(p.Port.IntVal)
			if p.EndPort != nil {
				r.hi = int(*p.EndPort)
			}
		}
		out = append(out, r)
	}
	return out
}

func flowPorts(p topology.Port) portRange {
	switch {
	case p.Number == 0:
		return portRange{protocol: p.Protocol, lo: 1, hi: lastPort}
	case p.End == 0:
		return portRange{protocol: p.Protocol, lo: p.Number, hi: p.Number}
	}
	return portRange{protocol: p.Protocol, lo: p.Number, hi: p.End}
}

// withoutPorts is what is left of the ranges once a flow's ports are taken away; a
// flow without ports is for everything.
func withoutPorts(need []portRange, flow []topology.Port) []portRange {
	if len(flow) == 0 {
		return nil
	}
	for _, p := range flow {
		have := flowPorts(p)
		var rest []portRange
		for _, n := range need {
			if n.protocol != have.protocol || have.hi < n.lo || n.hi < have.lo {
				rest = append(rest, n)
				continue
			}
			if n.lo < have.lo {
				rest = append(rest, portRange{n.protocol, n.lo, have.lo - 1})
			}
			if have.hi < n.hi {
				rest = append(rest, portRange{n.protocol, have.hi + 1, n.hi})
			}
		}
		need = rest
	}
	return need
}

// cells splits a range where a flow begins or ends, so that each flow is for all
// of a cell or for none of it.
func cells(r portRange, flows []topology.Flow) []portRange {
	if r.protocol == "" {
		return []portRange{r}
	}
	begins := []int{r.lo}
	for _, f := range flows {
		for _, p := range f.Ports {
			have := flowPorts(p)
			for _, b := range []int{have.lo, have.hi + 1} {
				if have.protocol == r.protocol && r.lo < b && b <= r.hi {
					begins = append(begins, b)
				}
			}
		}
	}
	slices.Sort(begins)
	begins = slices.Compact(begins)
	var out []portRange
	for i, b := range begins {
		end := r.hi
		if i+1 < len(begins) {
			end = begins[i+1] - 1
		}
		out = append(out, portRange{r.protocol, b, end})
	}
	return out
}

// span is a range of addresses of one family, both ends in it.
type span struct{ lo, hi netip.Addr }

func spanOf(p netip.Prefix) span {
	p = p.Masked()
	bytes := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 1 << (7 - bit%8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	return span{lo: p.Addr(), hi: last}
}

// spans are the addresses of a range less its exceptions; none if it cannot be read.
func spans(cidr string, except []string) []span {
	whole, err := netip.ParsePrefix(cidr)
	if err != nil {
		return nil
	}
	out := []span{spanOf(whole)}
	for _, e := range except {
		if p, err := netip.ParsePrefix(e); err == nil {
			out = withoutSpan(out, spanOf(p))
		}
	}
	return out
}

func withoutSpan(in []span, cut span) []span {
	var out []span
	for _, s := range in {
		if s.lo.Is4() != cut.lo.Is4() || cut.hi.Less(s.lo) || s.hi.Less(cut.lo) {
			out = append(out, s)
			continue
		}
		if s.lo.Less(cut.lo) {
			out = append(out, span{s.lo, cut.lo.Prev()})
		}
		if cut.hi.Less(s.hi) {
			out = append(out, span{cut.hi.Next(), s.hi})
		}
	}
	return out
}

// addressesCovered tells whether the flows together reach all of the block, for
// each of the ports.
func addressesCovered(b *networkingv1.IPBlock, need []portRange, flows []topology.Flow) bool {
	block := spans(b.CIDR, b.Except)
	if len(block) == 0 {
		return false
	}
	for _, n := range need {
		for _, cell := range cells(n, flows) {
			left := block
			for _, f := range flows {
				if len(withoutPorts([]portRange{cell}, f.Ports)) > 0 {
					continue
				}
				for _, q := range f.To {
					for _, s := range spans(cmp.Or(q.CIDR, "none"), q.Except) {
						left = withoutSpan(left, s)
					}
				}
			}
			if len(left) > 0 {
				return false
			}
		}
	}
	return true
}

// kindOf folds the ways to write a requirement into the four of selectors.
func kindOf(r labels.Requirement) metav1.LabelSelectorOperator {
	switch r.Operator() {
	case selection.In, selection.Equals, selection.DoubleEquals:
		return metav1.LabelSelectorOpIn
	case selection.NotIn, selection.NotEquals:
		return metav1.LabelSelectorOpNotIn
	case selection.Exists:
		return metav1.LabelSelectorOpExists
	}
	return metav1.LabelSelectorOpDoesNotExist
}
