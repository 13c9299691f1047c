// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Allowance is a compiled Config.Allowance. The zero value restricts nobody, as
// no flows do.
type Allowance struct {
	restricts bool
	flows     []flow
}

type flow struct {
	from  peer
	to    []peer
	ports []Port
}

// peer is a compiled Peer. A nil selector selects everything.
type peer struct {
	namespace        string
	namespaces, pods labels.Selector
	cidr             netip.Prefix
	except           []netip.Prefix
}

// CompileAllowance compiles Config.Allowance. A flow that does not compile allows
// nothing, and the error names it; the Allowance can be used all the same.
func CompileAllowance(flows []Flow) (Allowance, error) {
	a := Allowance{restricts: len(flows) > 0}
	var errs []error
	for i, f := range flows {
		c, err := compileFlow(f)
		if err != nil {
			errs = append(errs, fmt.Errorf("allowance[%d]: %w", i, err))
			continue
		}
		a.flows = append(a.flows, c)
	}
	return a, errors.Join(errs...)
}

func compileFlow(f Flow) (flow, error) {
	from, err := compilePeer(f.From)
	out := flow{from: from, ports: f.Ports}
	for _, p := range f.To {
		to, toErr := compilePeer(p)
		out.to = append(out.to, to)
		err = errors.Join(err, toErr)
	}
	return out, err
}

func compilePeer(p Peer) (peer, error) {
	if p.CIDR == "" {
		namespaces, err := selector(p.Namespaces)
		pods, podsErr := selector(p.Pods)
		return peer{namespace: p.Namespace, namespaces: namespaces, pods: pods}, errors.Join(err, podsErr)
	}
	cidr, err := netip.ParsePrefix(p.CIDR)
	out := peer{cidr: cidr.Masked()}
	for _, s := range p.Except {
		e, exceptErr := netip.ParsePrefix(s)
		out.except = append(out.except, e.Masked())
		err = errors.Join(err, exceptErr)
	}
	return out, err
}

func selector(s *metav1.LabelSelector) (labels.Selector, error) {
	if s == nil {
		return nil, nil
	}
	return metav1.LabelSelectorAsSelector(s)
}

// Restricts tells whether there is an allowance at all.
func (a Allowance) Restricts() bool { return a.restricts }

// Place is where a pod runs, as far as flows ask for it.
type Place struct {
	Namespace string
	// Labels of the namespace.
	Labels labels.Set
}

// FlowsFrom numbers the flows that pods of a namespace may have, as far as the
// namespace tells: places with the same flows have the same Reach.
func (a Allowance) FlowsFrom(at Place) []int {
	var out []int
	for i, f := range a.flows {
		if f.from.in(at) {
			out = append(out, i)
		}
	}
	return out
}

// Reach is what the allowance lets a pod call whose namespace has these FlowsFrom.
// Its labels are asked for only by flows for some pods of its namespace.
func (a Allowance) Reach(flows []int, selected func(labels.Selector) bool) Reach {
	var r Reach
	for _, i := range flows {
		if f := a.flows[i]; f.from.pods == nil || selected(f.from.pods) {
			r.flows = append(r.flows, f)
		}
	}
	return r
}

// in tells whether the peer is pods of this namespace, or some of them.
func (p peer) in(at Place) bool {
	switch {
	case p.cidr.IsValid():
		return false
	case p.namespaces != nil:
		return p.namespaces.Matches(at.Labels)
	}
	return p.namespace == at.Namespace
}

// Reach is what one pod may call, over TCP.
type Reach struct{ flows []flow }

// to tells whether a flow allows a port, or any for port 0, of peers.
func (r Reach) to(port uint32, peers func(peer) bool) bool {
	return slices.ContainsFunc(r.flows, func(f flow) bool {
		return f.opens(port) && slices.ContainsFunc(f.to, peers)
	})
}

func (f flow) opens(port uint32) bool {
	return len(f.ports) == 0 || slices.ContainsFunc(f.ports, func(p Port) bool {
		switch {
		case p.Protocol != "TCP":
			return false
		case port == 0 || p.Number == 0:
			return true
		}
		return int(port) >= p.Number && int(port) <= max(p.End, p.Number)
	})
}

// ToPod tells whether a pod may be called.
func (r Reach) ToPod(at Place, pod labels.Set, port uint32) bool {
	return r.to(port, func(p peer) bool { return p.in(at) && (p.pods == nil || p.pods.Matches(pod)) })
}

// ToNamespace tells whether any pod of a namespace may be called.
func (r Reach) ToNamespace(at Place, port uint32) bool {
	return r.to(port, func(p peer) bool { return p.in(at) })
}

// ToRange tells whether every address of a range may be called.
func (r Reach) ToRange(addresses netip.Prefix, port uint32) bool {
	return r.to(port, func(p peer) bool {
		return p.cidr.IsValid() && p.cidr.Bits() <= addresses.Bits() && p.cidr.Contains(addresses.Addr()) &&
			!slices.ContainsFunc(p.except, addresses.Overlaps)
	})
}

// ToAddress tells whether an address may be called.
func (r Reach) ToAddress(a netip.Addr, port uint32) bool {
	a = a.Unmap()
	return r.ToRange(netip.PrefixFrom(a, a.BitLen()), port)
}

// Anywhere tells whether every address of the family of a may be called.
func (r Reach) Anywhere(a netip.Addr, port uint32) bool {
	return r.ToRange(netip.PrefixFrom(a, 0).Masked(), port)
}
