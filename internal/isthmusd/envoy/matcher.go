// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"net/netip"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	networkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ir"
)

// byAddress chooses filter chains by the address that the client dialled.
func (p *packer) byAddress(choices []ir.AddressChoice) *xdsmatcherv3.Matcher {
	if len(choices) == 0 {
		return nil
	}
	tree := &xdsmatcherv3.IPMatcher{}
	for _, c := range choices {
		tree.RangeMatchers = append(tree.RangeMatchers, &xdsmatcherv3.IPMatcher_IPRangeMatcher{
			Ranges: xdsRanges(c.Ranges),
			OnMatch: &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{
				Action: &xdscorev3.TypedExtensionConfig{Name: c.Chain, TypedConfig: p.any(wrapperspb.String(c.Chain))},
			}},
		})
	}
	return &xdsmatcherv3.Matcher{MatcherType: &xdsmatcherv3.Matcher_MatcherTree_{MatcherTree: &xdsmatcherv3.Matcher_MatcherTree{
		Input: &xdscorev3.TypedExtensionConfig{
			Name: "envoy.matching.inputs.destination_ip", TypedConfig: p.any(&networkv3.DestinationIPInput{}),
		},
		TreeType: &xdsmatcherv3.Matcher_MatcherTree_CustomMatch{CustomMatch: &xdscorev3.TypedExtensionConfig{
			Name: "envoy.matching.custom_matchers.ip_range_matcher", TypedConfig: p.any(tree),
		}},
	}}}
}

func xdsRanges(ps []netip.Prefix) []*xdscorev3.CidrRange {
	var out []*xdscorev3.CidrRange
	for _, p := range ps {
		out = append(out, &xdscorev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: u32(uint32(p.Bits()))})
	}
	return out
}
