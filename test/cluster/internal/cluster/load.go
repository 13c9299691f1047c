// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cell"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
)

// Load imports image archives into every node of the running cluster.
func Load(c spec.Cluster, archives []string) error {
	var nodes errgroup.Group
	for _, n := range c.Machines() {
		nodes.Go(func() error {
			for _, a := range archives {
				if err := load(n, a); err != nil {
					return fmt.Errorf("import %s on %s: %w", a, n.Host(), err)
				}
			}
			return nil
		})
	}
	return nodes.Wait() //nolint:wrapcheck // says all
}

func load(n spec.Node, archive string) error {
	archive, err := filepath.Abs(archive)
	if err != nil {
		return err //nolint:wrapcheck // the caller says what
	}
	var said bytes.Buffer
	cmd := exec.Command(n.Binary("ctr"), "--address="+spec.ContainerdSocket, "--namespace=k8s.io", "images", "import", "--local", archive)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cell.Run(n.Cluster, n.Host(), cmd); err != nil {
		return errors.New(strings.TrimSpace(err.Error() + ": " + said.String())) // not an exec.ExitError, which has said all
	}
	return nil
}
