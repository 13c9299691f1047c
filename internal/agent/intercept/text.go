// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package intercept

import (
	"fmt"
	"net/netip"
	"strings"
)

// String prints the plan as a script for nft -f that replaces the table whole,
// which is what Apply does over netlink.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %[1]s\ndelete table inet %[1]s\ntable inet %[1]s {\n", Table)
	for i, c := range p.Chains {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "\tchain %s {\n\t\ttype nat hook %s priority -100; policy accept;\n", c.Name, c.Hook)
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "\t\t%s\n", r)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// String prints the rule as nft does.
func (r Rule) String() string {
	var parts []string
	for _, m := range r.Match {
		parts = append(parts, m.String())
	}
	parts = append(parts, "counter")
	if r.Redirect != 0 {
		parts = append(parts, fmt.Sprintf("redirect to :%d", r.Redirect))
	} else {
		parts = append(parts, "return")
	}
	if r.Why != "" {
		parts = append(parts, fmt.Sprintf("comment %q", r.Why))
	}
	return strings.Join(parts, " ")
}

// String prints the match as nft does.
func (m Match) String() string {
	op := " "
	if m.Not {
		op = " != "
	}
	switch {
	case m.TCP:
		return "meta l4proto" + op + "tcp"
	case len(m.Ports) > 0:
		return "tcp dport" + op + portSet(m.Ports)
	case m.Source.IsValid():
		return family(m.Source) + " saddr" + op + prefixText(m.Source)
	case m.Dest.IsValid():
		return family(m.Dest) + " daddr" + op + prefixText(m.Dest)
	case m.OutLink != "":
		return fmt.Sprintf("oifname%s%q", op, m.OutLink)
	case m.InLink != "":
		return fmt.Sprintf("iifname%s%q", op, m.InLink)
	case m.OwnerUID != nil:
		return fmt.Sprintf("meta skuid%s%d", op, *m.OwnerUID)
	case m.OwnerGID != nil:
		return fmt.Sprintf("meta skgid%s%d", op, *m.OwnerGID)
	}
	return ""
}

func portSet(ports []uint16) string {
	if len(ports) == 1 {
		return fmt.Sprint(ports[0])
	}
	var s []string
	for _, p := range ports {
		s = append(s, fmt.Sprint(p))
	}
	return "{ " + strings.Join(s, ", ") + " }"
}

func family(p netip.Prefix) string {
	if p.Addr().Is4() {
		return "ip"
	}
	return "ip6"
}

func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
