// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package full has the end-to-end tests that need clusters of their own and
// minutes: make e2e-full.
package full

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/isthmus-mesh/isthmus/test/journey"
)

// cleanup takes clusters down, also at an interrupt.
var cleanup *journey.Cleanup

// root of the repository.
var root string

// index of the clusters: one at a time.
const index = 5

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Println("SKIP: the embedded cluster needs root")
		return
	}
	var err error
	if root, err = filepath.Abs("../../.."); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cleanup = journey.NewCleanup()
	os.Exit(m.Run())
}

// start brings a cluster up, with the mesh and the cast in it, and takes it down
// at the end of the test.
func start(t *testing.T, name string, flags ...string) *journey.Env {
	t.Helper()
	o := journey.Options{Cluster: "embedded", Root: root, Name: name, Index: index, Flags: flags, Progress: func(s string) { t.Log(s) }}
	down := cleanup.Add(o.Down)
	t.Cleanup(func() {
		if err := down(); err != nil {
			t.Error(err)
		}
	})
	env, _, err := journey.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// devcluster runs the cluster's command.
func devcluster(t *testing.T, name, verb string, args ...string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), filepath.Join(root, "bin/devcluster"), append([]string{verb, "--name", name}, args...)...)
	c.Dir = root
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("devcluster %s %v: %v: %s", verb, args, err, out)
	}
}
