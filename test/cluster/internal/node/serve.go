// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"net/netip"

	"golang.org/x/sync/errgroup"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/enforce"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/nft"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/policy"
)

// serve starts what an agent of the network provider does elsewhere, within this process.
func (n *node) serve(ctx context.Context, services *errgroup.Group) {
	if !n.Policy.Disabled {
		services.Go(func() error { return enforce.Run(ctx, n.client, n.enforcement()) })
	}
}

// enforcement translates the cluster's settings.
func (n *node) enforcement() enforce.Options {
	settings := nft.Settings{
		Reject:            n.Policy.Deny == "reject",
		KeepEstablished:   n.Policy.Established == "keep",
		BeforeTranslation: n.Policy.Translation == "before",
	}
	o := enforce.Options{
		Node:    n.Host(),
		Window:  n.Policy.Window,
		Program: func(r policy.Rules) error { return nft.Program(r, settings) },
	}
	if n.Policy.Blocks == "not-node" {
		for _, m := range n.Machines() {
			for _, ip := range m.IPs() {
				a := netip.MustParseAddr(ip)
				o.Compile.NotBlocks = append(o.Compile.NotBlocks, netip.PrefixFrom(a, a.BitLen()))
			}
		}
	}
	return o
}
