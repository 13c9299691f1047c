// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"
)

// Range is the addresses from From to To, both included, both of one family.
type Range struct {
	From, To netip.Addr
}

// Contains says whether the address is in the range.
func (r Range) Contains(a netip.Addr) bool {
	return a.BitLen() == r.From.BitLen() && a.Compare(r.From) >= 0 && a.Compare(r.To) <= 0
}

func single(ips []netip.Addr) []Range {
	var all []Range
	for _, ip := range ips {
		all = append(all, Range{From: ip, To: ip})
	}
	return all
}

func prefix(p netip.Prefix) Range {
	p = p.Masked()
	to := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(to)*8; bit++ {
		to[bit/8] |= 1 << (7 - bit%8)
	}
	last, _ := netip.AddrFromSlice(to) // has the length of an address
	return Range{From: p.Addr(), To: last}
}

// subtract removes x from the ranges.
func subtract(ranges []Range, x Range) []Range {
	var left []Range
	for _, r := range ranges {
		if r.From.BitLen() != x.From.BitLen() || x.To.Less(r.From) || r.To.Less(x.From) {
			left = append(left, r)
			continue
		}
		if r.From.Less(x.From) {
			left = append(left, Range{From: r.From, To: x.From.Prev()})
		}
		if x.To.Less(r.To) {
			left = append(left, Range{From: x.To.Next(), To: r.To})
		}
	}
	return left
}

// merge sorts the ranges and joins those that touch, which is the only form in
// which the kernel takes a set of them.
func merge(ranges []Range) []Range {
	ranges = slices.Clone(ranges)
	slices.SortFunc(ranges, func(a, b Range) int { return a.From.Compare(b.From) })
	var out []Range
	for _, r := range ranges {
		if len(out) == 0 {
			out = append(out, r)
			continue
		}
		last := &out[len(out)-1]
		next := last.To.Next() // invalid after the family's last address
		if last.To.BitLen() != r.From.BitLen() || (next.IsValid() && next.Less(r.From)) {
			out = append(out, r)
			continue
		}
		if last.To.Less(r.To) {
			last.To = r.To
		}
	}
	return out
}
