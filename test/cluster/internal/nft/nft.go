// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package nft makes package policy's rules true on a node by two nftables tables of
// its own, which each change replaces as a whole in one transaction.
//
// It hooks forward and input, where kube-proxy has translated the destination and
// not yet masqueraded the source: pods' real addresses are seen both ways. What
// the node itself sends is never filtered, or probes would be.
package nft

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/policy"
)

// Table is the name of the two tables, of families ip and ip6.
const Table = "devcluster"

// Settings are the ways in which implementations differ.
type Settings struct {
	Reject          bool // answer what is denied, else drop it
	KeepEstablished bool // leave connections alone that were allowed when they began
	// BeforeTranslation compares blocks of addresses with what a pod asked for,
	// which may be a Service's address, and not with whom it reaches.
	BeforeTranslation bool
}

// Program replaces the tables by those for the rules, in the network namespace of
// the caller. One call at a time: the library counts sets in a global variable.
func Program(r policy.Rules, s Settings) error {
	c, err := nftables.New(nftables.WithSockOptions(largeBatches))
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	for _, f := range families() {
		t := &nftables.Table{Family: f.table, Name: Table}
		b := &batch{Settings: s, family: f, conn: c, table: t, chains: map[string]*nftables.Chain{}}
		// Deleting a table that is not there would fail the transaction.
		c.AddTable(t)
		c.DelTable(t)
		c.AddTable(t)
		if err := b.add(r); err != nil {
			return err
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("program %d pods: %w", len(r.Pods), err)
	}
	return nil
}

// largeBatches makes room for the one message in which a transaction is sent, and
// for the kernel's answer to each part of it: a full receive buffer is an error
// (ENOBUFS) that hides whether the transaction went through.
func largeBatches(c *netlink.Conn) error {
	if err := c.SetWriteBuffer(batchBuffer); err != nil {
		return fmt.Errorf("set write buffer: %w", err)
	}
	if err := c.SetReadBuffer(batchBuffer); err != nil {
		return fmt.Errorf("set read buffer: %w", err)
	}
	return nil
}

const batchBuffer = 16 << 20 // bytes

// batch is one family's part of a transaction in the making.
type batch struct {
	Settings
	family
	conn   *nftables.Conn
	table  *nftables.Table
	chains map[string]*nftables.Chain // by what is in them
}

// side is one end of a connection as the kernel sees its packets.
type side struct {
	name  string // of the verdict map
	own   expr.Any
	peer  expr.Any
	port  expr.Any
	asked bool // peer and port may differ from what was asked for
}

func (f family) egress() side {
	return side{name: "egress", own: f.sourceAddress(), peer: f.destinationAddress(), port: destinationPort(), asked: true}
}

func (f family) ingress() side {
	return side{name: "ingress", own: f.destinationAddress(), peer: f.sourceAddress(), port: destinationPort()}
}

func (b *batch) add(r policy.Rules) error {
	out, err := b.verdicts(r, b.egress(), func(p policy.PodRules) *policy.Direction { return p.Egress })
	if err != nil {
		return err
	}
	in, err := b.verdicts(r, b.ingress(), func(p policy.PodRules) *policy.Direction { return p.Ingress })
	if err != nil {
		return err
	}
	self, err := b.self(r)
	if err != nil {
		return err
	}
	for _, hook := range []struct {
		name  string
		hook  *nftables.ChainHook
		sides []*nftables.Set
	}{
		{"forward", nftables.ChainHookForward, []*nftables.Set{out, in}},
		{"input", nftables.ChainHookInput, []*nftables.Set{out}}, // the node is nobody's pod
	} {
		chain := b.conn.AddChain(&nftables.Chain{
			Name: hook.name, Table: b.table, Type: nftables.ChainTypeFilter,
			Hooknum: hook.hook, Priority: nftables.ChainPriorityFilter,
		})
		b.rule(chain, b.established()...)
		if b.table.Family == nftables.TableFamilyIPv6 {
			b.link(chain)
		}
		b.rule(chain, b.bothAddresses(), lookup(self), &expr.Verdict{Kind: expr.VerdictAccept})
		for i, set := range hook.sides {
			b.rule(chain, []side{b.egress(), b.ingress()}[i].own, jump(set))
		}
	}
	return nil
}

// link lets neighbours find each other, which is no pod's traffic, and closes what
// would be a way around all rules: pods have link-local addresses too.
func (b *batch) link(chain *nftables.Chain) {
	b.rule(chain, append(neighbours(), &expr.Verdict{Kind: expr.VerdictAccept})...)
	b.rule(chain, append(b.linkLocal(), &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})...)
}

// established accepts replies always, so that a policy at one end is enough, and
// the rest of a connection if that is the setting.
func (b *batch) established() []expr.Any {
	if b.KeepEstablished {
		return append(stateIs(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), &expr.Verdict{Kind: expr.VerdictAccept})
	}
	e := []expr.Any{
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{replyDirection}},
	}
	e = append(e, stateIs(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)...)
	return append(e, &expr.Verdict{Kind: expr.VerdictAccept})
}

// self is the set of pairs of an address with itself: a pod that reaches itself
// through a Service is nobody's business.
func (b *batch) self(r policy.Rules) (*nftables.Set, error) {
	set := &nftables.Set{
		Table: b.table, Name: "self", Concatenation: true,
		KeyType: nftables.MustConcatSetType(b.key, b.key),
	}
	var elements []nftables.SetElement
	for _, ip := range b.addresses(r) {
		k := ip.AsSlice()
		elements = append(elements, nftables.SetElement{Key: append(k, ip.AsSlice()...)})
	}
	if err := b.conn.AddSet(set, elements); err != nil {
		return nil, fmt.Errorf("add set %s: %w", set.Name, err)
	}
	return set, nil
}

func (f family) addresses(r policy.Rules) []netip.Addr {
	seen := map[netip.Addr]bool{}
	var all []netip.Addr
	for _, p := range r.Pods {
		for _, ip := range p.IPs {
			if f.has(ip) && !seen[ip] {
				seen[ip] = true
				all = append(all, ip)
			}
		}
	}
	return all
}

// verdicts is the map from isolated pods to the chains of what they may do.
func (b *batch) verdicts(r policy.Rules, s side, of func(policy.PodRules) *policy.Direction) (*nftables.Set, error) {
	set := &nftables.Set{
		Table: b.table, Name: s.name, IsMap: true,
		KeyType: b.key, DataType: nftables.TypeVerdict,
	}
	seen := map[netip.Addr]bool{}
	var elements []nftables.SetElement
	for _, p := range r.Pods {
		d := of(p)
		if d == nil {
			continue
		}
		chain, err := b.chain(*d, s)
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", s.name, p.Pod, err)
		}
		for _, ip := range p.IPs {
			if !b.has(ip) || seen[ip] {
				continue
			}
			seen[ip] = true
			elements = append(elements, nftables.SetElement{
				Key: ip.AsSlice(), VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: chain.Name},
			})
		}
	}
	if err := b.conn.AddSet(set, elements); err != nil {
		return nil, fmt.Errorf("add map %s: %w", set.Name, err)
	}
	return set, nil
}

// chain is the chain for what is allowed; pods that may do the same share one.
func (b *batch) chain(d policy.Direction, s side) (*nftables.Chain, error) {
	sum := sha256.Sum256(fmt.Append(nil, s.name, d))
	name := s.name + "-" + hex.EncodeToString(sum[:6])
	if c, ok := b.chains[name]; ok {
		return c, nil
	}
	chain := b.conn.AddChain(&nftables.Chain{Name: name, Table: b.table})
	b.chains[name] = chain
	for _, a := range d.Allows {
		if err := b.allow(chain, s, a); err != nil {
			return nil, err
		}
	}
	b.deny(chain)
	return chain, nil
}

func (b *batch) allow(chain *nftables.Chain, s side, a policy.Allow) error {
	if a.Block && s.asked && b.BeforeTranslation {
		s.peer, s.port = askedAddress(), askedPort()
	}
	if a.Peers != nil {
		if a.Peers = b.own(a.Peers); len(a.Peers) == 0 {
			return nil // nobody of this family
		}
	}
	peers, err := b.peers(s, a.Peers)
	if err != nil {
		return err
	}
	pass := &expr.Verdict{Kind: expr.VerdictReturn} // the other end's rules are asked next
	if len(a.Ports) == 0 {
		b.rule(chain, append(peers, &expr.Counter{}, pass)...)
		return nil
	}
	for i, p := range a.Ports {
		if i > 0 { // an anonymous set belongs to one rule
			if peers, err = b.peers(s, a.Peers); err != nil {
				return err
			}
		}
		port, err := ports(p, s.port)
		if err != nil {
			return err
		}
		b.rule(chain, append(append(peers, port...), &expr.Counter{}, pass)...)
	}
	return nil
}

// own are the ranges of the family.
func (f family) own(ranges []policy.Range) []policy.Range {
	var own []policy.Range
	for _, r := range ranges {
		if f.has(r.From) {
			own = append(own, r)
		}
	}
	return own
}

// peers matches the far end's address.
func (b *batch) peers(s side, ranges []policy.Range) ([]expr.Any, error) {
	if ranges == nil {
		return nil, nil
	}
	set := &nftables.Set{Table: b.table, Anonymous: true, Constant: true, Interval: true, KeyType: b.key}
	var elements []nftables.SetElement
	for _, r := range ranges {
		elements = append(elements, nftables.SetElement{Key: r.From.AsSlice()})
		if next := r.To.Next(); next.IsValid() { // else it is open up to the last address
			elements = append(elements, nftables.SetElement{Key: next.AsSlice(), IntervalEnd: true})
		}
	}
	if err := b.conn.AddSet(set, elements); err != nil {
		return nil, fmt.Errorf("add set of peers: %w", err)
	}
	return []expr.Any{s.peer, lookup(set)}, nil
}

// deny ends a chain.
func (b *batch) deny(chain *nftables.Chain) {
	if !b.Reject {
		b.rule(chain, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})
		return
	}
	b.rule(chain, append(protocolIs(tcp), &expr.Counter{}, reset())...)
	b.rule(chain, &expr.Counter{}, b.denied())
}

func (b *batch) rule(chain *nftables.Chain, e ...expr.Any) {
	b.conn.AddRule(&nftables.Rule{Table: b.table, Chain: chain, Exprs: e})
}
