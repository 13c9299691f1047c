// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package intercept

import (
	"fmt"
	"slices"
	"testing"

	"github.com/vishvananda/netns"
)

// spare are rules whose loss no connection of a program notices, and why they are
// there all the same. Each is told by its chain and text.
var spare = map[string]string{
	`outbound: oifname "lo" meta skgid 1337 ip daddr != 127.0.0.1 meta l4proto tcp`: "loopback is decided by the user before; for sockets of no user",
	`outbound: oifname "lo" meta skgid 1337 ip6 daddr != ::1 meta l4proto tcp`:      "loopback is decided by the user before; for sockets of no user",
	`outbound: oifname "lo" meta skgid != 1337`:                                     "loopback is decided by the user before; for sockets of no user",
	`outbound: ip daddr 127.0.0.1`:                                                  "for sockets of no user, as the kernel's own are",
	`outbound: ip6 daddr ::1`:                                                       "for sockets of no user, as the kernel's own are",
}

// TestEveryRuleOfTheRedirectCounts takes each rule away in the kernel: some
// connection must end elsewhere, or the rule is not needed or not tested.
func TestEveryRuleOfTheRedirectCounts(t *testing.T) {
	whole := connsPlan()
	inThread(t, func() error {
		p, err := newPair()
		if err != nil {
			return err
		}
		if err := AddSource(); err != nil {
			return err
		}
		if err := listen(p); err != nil {
			return err
		}
		for c, chain := range whole.Chains {
			for r, rule := range chain.Rules {
				if err := netns.Set(p.pod); err != nil {
					return err
				}
				if err := Apply(without(whole, c, r)); err != nil {
					return fmt.Errorf("without %s: %w", rule, err)
				}
				judge(t, name(chain, rule), p.notices())
			}
		}
		return nil
	})
}

func judge(t *testing.T, rule string, noticed bool) {
	t.Helper()
	switch why := spare[rule]; {
	case !noticed && why == "":
		t.Errorf("no connection notices the loss of %s", rule)
	case noticed && why != "":
		t.Errorf("the loss of %s is noticed: it is not spare", rule)
	}
}

// notices tells whether a connection ends elsewhere than with the whole plan.
func (p pair) notices() bool {
	for _, c := range conns() {
		if got, err := p.reach(c); err != nil || got != c.want {
			return true
		}
	}
	return false
}

// without is the plan less one rule.
func without(p Plan, chain, rule int) Plan {
	p.Chains = slices.Clone(p.Chains)
	p.Chains[chain].Rules = slices.Delete(slices.Clone(p.Chains[chain].Rules), rule, rule+1)
	return p
}

// name is the rule's chain and what it matches.
func name(c Chain, r Rule) string {
	out := c.Name + ":"
	for _, m := range r.Match {
		out += " " + m.String()
	}
	return out
}
