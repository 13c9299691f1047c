// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package intercept

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Apply installs the plan in the caller's network namespace in one transaction
// that replaces what an earlier call left. It needs NET_ADMIN and nothing else.
// Not for concurrent use: the library numbers sets by a variable of its package.
func Apply(p Plan) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open netlink to nftables: %w", err)
	}
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: Table}
	c.AddTable(t) // so that the deletion below finds it
	c.DelTable(t)
	c.AddTable(t)
	for _, ch := range p.Chains {
		if err := addChain(c, t, ch); err != nil {
			return fmt.Errorf("chain %s: %w", ch.Name, err)
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("install table %s: %w", Table, err)
	}
	return nil
}

// AddSource gives the loopback interface ::6, from which the proxy hands IPv6
// connections to the application; 127.0.0.6 is local by itself. A pod without
// IPv6 needs none, and that is no error.
func AddSource() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	six := netip.MustParseAddr("::6")
	a := &netlink.Addr{IPNet: &net.IPNet{IP: six.AsSlice(), Mask: net.CIDRMask(128, 128)}, Flags: unix.IFA_F_NODAD}
	err = netlink.AddrReplace(lo, a)
	for _, fine := range []error{unix.EACCES, unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT} {
		if errors.Is(err, fine) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("add ::6 to lo: %w", err)
	}
	return nil
}

func addChain(c *nftables.Conn, t *nftables.Table, ch Chain) error {
	hook := nftables.ChainHookPrerouting
	if ch.Hook == Output {
		hook = nftables.ChainHookOutput
	}
	accept := nftables.ChainPolicyAccept
	chain := c.AddChain(&nftables.Chain{
		Name: ch.Name, Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: hook, Priority: nftables.ChainPriorityNATDest, Policy: &accept,
	})
	for _, r := range ch.Rules {
		var exprs []expr.Any
		for _, m := range r.Match {
			e, err := encode(c, t, m)
			if err != nil {
				return fmt.Errorf("rule %q: %w", r, err)
			}
			exprs = append(exprs, e...)
		}
		exprs = append(exprs, &expr.Counter{})
		exprs = append(exprs, verdict(r)...)
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: exprs, UserData: userdata.AppendString(nil, userdata.TypeComment, r.Why)})
	}
	return nil
}

func verdict(r Rule) []expr.Any {
	if r.Redirect == 0 {
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}
	}
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(r.Redirect)},
		&expr.Redir{RegisterProtoMin: 1, Flags: unix.NF_NAT_RANGE_PROTO_SPECIFIED},
	}
}

// encode turns one match into the kernel's expressions; all use register 1.
func encode(c *nftables.Conn, t *nftables.Table, m Match) ([]expr.Any, error) {
	op := expr.CmpOpEq
	if m.Not {
		op = expr.CmpOpNeq
	}
	switch {
	case m.TCP:
		return meta(expr.MetaKeyL4PROTO, op, []byte{unix.IPPROTO_TCP}), nil
	case len(m.Ports) > 0:
		return encodePorts(c, t, m)
	case m.Source.IsValid():
		return encodePrefix(m.Source, op, 12, 8), nil
	case m.Dest.IsValid():
		return encodePrefix(m.Dest, op, 16, 24), nil
	case m.OutLink != "":
		return meta(expr.MetaKeyOIFNAME, op, linkName(m.OutLink)), nil
	case m.InLink != "":
		return meta(expr.MetaKeyIIFNAME, op, linkName(m.InLink)), nil
	case m.OwnerUID != nil:
		return meta(expr.MetaKeySKUID, op, binaryutil.NativeEndian.PutUint32(*m.OwnerUID)), nil
	case m.OwnerGID != nil:
		return meta(expr.MetaKeySKGID, op, binaryutil.NativeEndian.PutUint32(*m.OwnerGID)), nil
	}
	return nil, errors.New("empty match")
}

func meta(key expr.MetaKey, op expr.CmpOp, data []byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: op, Register: 1, Data: data},
	}
}

func encodePorts(c *nftables.Conn, t *nftables.Table, m Match) ([]expr.Any, error) {
	out := append(meta(expr.MetaKeyL4PROTO, expr.CmpOpEq, []byte{unix.IPPROTO_TCP}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2})
	if len(m.Ports) == 1 {
		op := expr.CmpOpEq
		if m.Not {
			op = expr.CmpOpNeq
		}
		return append(out, &expr.Cmp{Op: op, Register: 1, Data: binaryutil.BigEndian.PutUint16(m.Ports[0])}), nil
	}
	set := &nftables.Set{Table: t, Anonymous: true, Constant: true, KeyType: nftables.TypeInetService}
	var els []nftables.SetElement
	for _, p := range m.Ports {
		els = append(els, nftables.SetElement{Key: binaryutil.BigEndian.PutUint16(p)})
	}
	if err := c.AddSet(set, els); err != nil {
		return nil, fmt.Errorf("add set of ports: %w", err)
	}
	return append(out, &expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID, Invert: m.Not}), nil
}

// encodePrefix matches the address at the given offset of the IPv4 or IPv6
// header; only packets of the prefix's family match, negated or not.
func encodePrefix(p netip.Prefix, op expr.CmpOp, off4, off6 uint32) []expr.Any {
	proto, off, size := byte(unix.NFPROTO_IPV4), off4, 4
	if p.Addr().Is6() {
		proto, off, size = unix.NFPROTO_IPV6, off6, 16
	}
	out := append(meta(expr.MetaKeyNFPROTO, expr.CmpOpEq, []byte{proto}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: off, Len: uint32(size)})
	if !p.IsSingleIP() {
		out = append(out, &expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: uint32(size),
			Mask: net.CIDRMask(p.Bits(), size*8), Xor: make([]byte, size),
		})
	}
	return append(out, &expr.Cmp{Op: op, Register: 1, Data: p.Masked().Addr().AsSlice()})
}

func linkName(n string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, n)
	return b
}
