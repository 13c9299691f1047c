// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/policy"
)

const (
	tcp            = unix.IPPROTO_TCP
	replyDirection = 1 // IP_CT_DIR_REPLY
	// The offsets of the IPv4 header; the addresses follow one another.
	sourceOffset, destinationOffset, addressLength = 12, 16, 4
)

func source() expr.Any { return address(sourceOffset, addressLength) }

func destination() expr.Any { return address(destinationOffset, addressLength) }

func destinationPort() expr.Any {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

// askedAddress and askedPort are the destination before any translation.
func askedAddress() expr.Any { return &expr.Ct{Key: expr.CtKeyDST, Register: 1} }

func askedPort() expr.Any { return &expr.Ct{Key: expr.CtKeyPROTODST, Register: 1} }

func bothAddresses() expr.Any { return address(sourceOffset, 2*addressLength) }

func address(offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}
}

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

func prohibited() expr.Any {
	return &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: icmpAdminProhibited}
}

// icmpAdminProhibited is ICMP_PKT_FILTERED, which clients see as "permission
// denied" or "no route to host", not as a port where nobody listens.
const icmpAdminProhibited = 13
