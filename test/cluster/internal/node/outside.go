// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/supervise"
)

type host struct{ Name, Address string }

func outsideHosts() []host {
	return []host{
		{"allowed.outside.test", "203.0.113.10"},
		{"other.outside.test", "203.0.113.20"},
	}
}

func outsideAddresses() []string { return []string{"203.0.113.10", "203.0.113.20", "203.0.113.30"} }

func (n *node) outside() []supervise.Program { return nil }

func (n *node) serve(context.Context, *errgroup.Group) {}
