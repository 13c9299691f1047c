// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/policy"
)

const (
	tcp            = unix.IPPROTO_TCP
	icmpv6         = unix.IPPROTO_ICMPV6
	replyDirection = 1 // IP_CT_DIR_REPLY
)

// family is what differs between IPv4 and IPv6.
type family struct {
	table nftables.TableFamily
	key   nftables.SetDatatype
	// The source's offset in the header and the length of an address; the
	// destination's follows.
	source, length uint32
	prohibited     uint8 // the ICMP code that clients see as "permission denied"
}

func families() []family {
	return []family{
		{table: nftables.TableFamilyIPv4, key: nftables.TypeIPAddr, source: 12, length: 4, prohibited: 13},
		{table: nftables.TableFamilyIPv6, key: nftables.TypeIP6Addr, source: 8, length: 16, prohibited: 1},
	}
}

func (f family) has(a netip.Addr) bool { return uint32(a.BitLen()) == 8*f.length } //nolint:gosec // 32 or 128

func (f family) sourceAddress() expr.Any { return address(f.source, f.length) }

func (f family) destinationAddress() expr.Any { return address(f.source+f.length, f.length) }

func (f family) bothAddresses() expr.Any { return address(f.source, 2*f.length) }

func address(offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}
}

func destinationPort() expr.Any {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

// askedAddress and askedPort are the destination before any translation.
func askedAddress() expr.Any { return &expr.Ct{Key: expr.CtKeyDST, Register: 1} }

func askedPort() expr.Any { return &expr.Ct{Key: expr.CtKeyPROTODST, Register: 1} }

func lookup(s *nftables.Set) expr.Any {
	return &expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID}
}

// jump takes the verdict that the map holds, if it holds one.
func jump(s *nftables.Set) expr.Any {
	return &expr.Lookup{SourceRegister: 1, DestRegister: 0, IsDestRegSet: true, SetName: s.Name, SetID: s.ID}
}

func stateIs(bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func protocolIs(p byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{p}},
	}
}

// ports matches the protocol and the destination port, which is at the same place
// in the headers of all three.
func ports(p policy.Ports, port expr.Any) ([]expr.Any, error) {
	number, ok := map[corev1.Protocol]byte{
		corev1.ProtocolTCP: tcp, corev1.ProtocolUDP: unix.IPPROTO_UDP, corev1.ProtocolSCTP: unix.IPPROTO_SCTP,
	}[p.Protocol]
	if !ok {
		return nil, fmt.Errorf("protocol %q is not known", p.Protocol)
	}
	e := protocolIs(number)
	if p.From == 0 && p.To == 65535 {
		return e, nil
	}
	return append(e,
		port,
		&expr.Range{Op: expr.CmpOpEq, Register: 1, FromData: binaryutil.BigEndian.PutUint16(p.From), ToData: binaryutil.BigEndian.PutUint16(p.To)},
	), nil
}

func reset() expr.Any { return &expr.Reject{Type: unix.NFT_REJECT_TCP_RST} }

// denied answers so that clients see "permission denied" or "no route to host", not a
// port where nobody listens.
func (f family) denied() expr.Any {
	return &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: f.prohibited}
}

// The types of ICMPv6 from router solicitation to redirect, by which neighbours
// find each other.
const firstNeighbour, lastNeighbour = 133, 137

func neighbours() []expr.Any {
	return append(protocolIs(icmpv6),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Range{Op: expr.CmpOpEq, Register: 1, FromData: []byte{firstNeighbour}, ToData: []byte{lastNeighbour}},
	)
}

// linkLocal matches the addresses that pods have besides their own.

func (f family) linkLocal() []expr.Any {
	return []expr.Any{
		address(f.source, 2),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: []byte{0xff, 0xc0}, Xor: []byte{0, 0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0xfe, 0x80}},
	}
}
