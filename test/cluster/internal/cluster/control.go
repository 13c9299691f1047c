// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"slices"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cell"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/control"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/node"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/supervise"
)

// Control has the request done by the supervisor of the cell, or of the first one
// that runs such a program if where is empty.
func Control(c spec.Cluster, where string, r control.Request) error {
	cells := []string{where}
	if where == "" {
		cells = append(c.Cells()[1:], spec.Outside)
	}
	if r.Name == node.DNS {
		if r.Start || r.Hold {
			return errors.New("coredns is a Deployment: to keep it away, scale it, as in: kubectl --namespace kube-system scale deployment coredns --replicas 0")
		}
		return anywhere(c, cells, r)
	}
	for _, name := range cells {
		s, err := supervise.Read(c.CellPath(name))
		if err == nil && slices.ContainsFunc(s.Programs, func(p supervise.Status) bool { return p.Name == r.Name }) {
			return ask(c, name, r)
		}
	}
	return fmt.Errorf("there is no program %s; devcluster status lists them", r.Name)
}

// anywhere asks all for what at least one of them can do.
func anywhere(c spec.Cluster, cells []string, r control.Request) error {
	var all []error
	for _, name := range cells {
		all = append(all, ask(c, name, r))
	}
	if slices.Contains(all, nil) {
		return nil
	}
	return errors.Join(all...)
}

func ask(c spec.Cluster, name string, r control.Request) error {
	socket, err := cell.ControlSocket(c, name)
	if err != nil {
		return err //nolint:wrapcheck // says all
	}
	return control.Ask(socket, r) //nolint:wrapcheck // says all
}
