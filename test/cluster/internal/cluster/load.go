// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cell"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
)

// Load imports image archives into the running cluster.
func Load(c spec.Cluster, archives []string) error {
	for _, a := range archives {
		a, err := filepath.Abs(a)
		if err != nil {
			return fmt.Errorf("resolve %s: %w", a, err)
		}
		var said bytes.Buffer
		cmd := exec.Command(c.Binary("ctr"), "--address="+spec.ContainerdSocket, "--namespace=k8s.io", "images", "import", "--local", a)
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cell.Run(c, cell.OnNode, cmd); err != nil {
			return fmt.Errorf("import %s: %w: %s", a, err, said.String())
		}
	}
	return nil
}
