// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// Load makes a snapshot of YAML documents alone, without a source to follow: for
// tools that explain files, and for tests. Services select their pods as in a
// configuration directory.
func Load(docs []byte, c topology.Config) (*snapshot.Snapshot, error) {
	c = Defaults(c)
	mesh, err := ParseMesh("", c)
	if err != nil {
		return nil, err
	}
	p, err := parseFile(kinds(), Converter{Topology: c, Standalone: true}, docs)
	if err != nil {
		return nil, fmt.Errorf("load documents: %w", err)
	}
	snap, _ := snapshot.NewStore(c, mesh).Commit(func(x *snapshot.Txn) { newRowSet().apply(x, p.objects) })
	return snap, nil
}
