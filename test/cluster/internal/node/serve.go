// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"net/netip"

	"golang.org/x/sync/errgroup"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/loadbalancer"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
)

// serve starts what the cluster's provider does elsewhere, within this process.
func (n *node) serve(ctx context.Context, services *errgroup.Group) {
	services.Go(func() error {
		return loadbalancer.Run(ctx, n.client, netip.MustParsePrefix(spec.LoadBalancerCIDR))
	})
}
