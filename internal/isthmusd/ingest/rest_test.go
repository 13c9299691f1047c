// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"context"
	"testing"
	"time"

	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// TestWhatArrivesDuringARestIsOneCommit lets an object arrive while the commit of
// another has to wait.
func TestWhatArrivesDuringARestIsOneCommit(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var i *Ingest
	arrive := func(name string) {
		n := &model.Namespace{Name: name}
		row := Row{Key: name, Put: func(x *snapshot.Txn) { x.PutNamespace(n) }}
		i.queue.Set(map[ID]Object{{Kind: "Namespace", Name: name}: {Rows: []Row{row}}})
	}
	rests := 0
	var commits []int
	i = New(Options{
		Store: snapshot.NewStore(topology.Config{}, &meshconfig.MeshConfig{}),
		Rest: func() time.Duration {
			if rests++; rests > 1 {
				return 0
			}
			arrive("second")
			return time.Nanosecond
		},
		Sink: func(s *snapshot.Snapshot, _ snapshot.Changes) {
			commits = append(commits, s.Counts()["namespaces"])
			cancel()
		},
	})
	arrive("first")
	if err := i.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if len(commits) != 1 || commits[0] != 2 {
		t.Errorf("commits brought it to %v namespaces, want one commit of both", commits)
	}
}
