// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package acceptance

import (
	"os"
	"os/exec"
	"testing"
)

// TestConformance asks Kubernetes' own suite, in ten cases, whether NetworkPolicies
// are enforced; make cluster-conformance asks it in all.
func TestConformance(t *testing.T) {
	t.Parallel()
	devcluster, testapp := build(t)
	c := up(t, devcluster, testapp, "conformance", "--index", "10")
	logs := t.TempDir()
	cmd := exec.Command(devcluster, "conformance", "--name", c.name, "--dir", c.dir, "--logs", logs, "networkpolicy-short")
	cmd.Dir, cmd.Stdout, cmd.Stderr = repository, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Errorf("devcluster conformance: %v", err)
	}
}
