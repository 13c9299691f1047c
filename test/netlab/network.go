// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Networks are apart: what a pod in one sends to a pod in another is refused at once,
// but for that to pods that are public, as gateways between networks are. The control
// plane, hosts outside and pods without a network are reached from everywhere and
// reach everything.
//
// The router refuses with nftables and not with routes: the kernel limits how often
// it says that a route leads nowhere, so that some would wait in vain. Addresses
// decide, so that it holds for pods in zones too.
const networksTable = "inet networks"

// layNetworks makes the table, in which public addresses are exempt and answers pass.
const layNetworks = `
add table ` + networksTable + `
add set ` + networksTable + ` public4 { type ipv4_addr; }
add set ` + networksTable + ` public6 { type ipv6_addr; }
add set ` + networksTable + ` apart4 { type ipv4_addr; }
add set ` + networksTable + ` apart6 { type ipv6_addr; }
add chain ` + networksTable + ` forward { type filter hook forward priority 0; }
add rule ` + networksTable + ` forward ct direction reply accept
add rule ` + networksTable + ` forward ip daddr @public4 accept
add rule ` + networksTable + ` forward ip6 daddr @public6 accept
`

// layNetwork makes a network, of the name NAME: what comes from it may go to its own
// addresses, and to those that are in no network.
const layNetwork = `
add set ` + networksTable + ` in-NAME-4 { type ipv4_addr; }
add set ` + networksTable + ` in-NAME-6 { type ipv6_addr; }
add chain ` + networksTable + ` from-NAME
add rule ` + networksTable + ` from-NAME ip daddr @in-NAME-4 accept
add rule ` + networksTable + ` from-NAME ip6 daddr @in-NAME-6 accept
add rule ` + networksTable + ` from-NAME ip daddr != @apart4 accept
add rule ` + networksTable + ` from-NAME ip6 daddr != @apart6 accept
add rule ` + networksTable + ` from-NAME meta l4proto tcp reject with tcp reset
add rule ` + networksTable + ` from-NAME reject with icmpx type admin-prohibited
add rule ` + networksTable + ` forward ip saddr @in-NAME-4 goto from-NAME
add rule ` + networksTable + ` forward ip6 saddr @in-NAME-6 goto from-NAME
`

// join puts the pod into its network.
func (r *router) join(ctx context.Context, p *Pod) error {
	if p.Network == "" {
		return nil
	}
	var rules strings.Builder
	if len(r.networks) == 0 {
		rules.WriteString(layNetworks)
	}
	if !slices.Contains(r.networks, p.Network) {
		r.networks = append(r.networks, p.Network)
		rules.WriteString(strings.ReplaceAll(layNetwork, "NAME", p.Network))
	}
	for _, ip := range p.addresses() {
		family := "4"
		if ip.Is6() {
			family = "6"
		}
		sets := []string{"apart" + family, "in-" + p.Network + "-" + family}
		if p.Public {
			sets = append(sets, "public"+family)
		}
		for _, set := range sets {
			fmt.Fprintf(&rules, "add element %s %s { %s }\n", networksTable, set, ip)
		}
	}
	_, err := run(ctx, r.space, program{name: "nft", uid: uidRoot, args: []string{"/usr/sbin/nft", rules.String()}})
	if err != nil {
		return fmt.Errorf("put %s into network %s: %w", p.Name, p.Network, err)
	}
	return nil
}

// apartFrom tells whether what the pod sends to the other is refused.
func (p *Pod) apartFrom(other *Pod) bool {
	return p != nil && p.Network != "" && other.Network != "" && p.Network != other.Network && !other.Public
}
