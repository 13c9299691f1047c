// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"fmt"
	"path/filepath"
	"slices"
)

// MaxNodes is how many nodes a cluster may have.
const MaxNodes = 8

// Outside is the name of the cell that is the router and everything beyond it.
// The others are nodes.
const Outside = "outside"

// Node is one machine of a cluster.
type Node struct {
	Cluster
	Number int // from 1, the one with the control plane
}

// Machines are the cluster's nodes, the one with the control plane first.
func (c Cluster) Machines() []Node {
	var all []Node
	for i := range c.Nodes {
		all = append(all, Node{Cluster: c, Number: i + 1})
	}
	return all
}

// Machine is the node of that name.
func (c Cluster) Machine(name string) (Node, error) {
	all := c.Machines()
	i := slices.IndexFunc(all, func(n Node) bool { return n.Host() == name })
	if i < 0 {
		return Node{}, fmt.Errorf("cluster %s has no node %q; it has node1 to node%d", c.Name, name, c.Nodes)
	}
	return all[i], nil
}

// Cells are the names of all that lives in namespaces of its own.
func (c Cluster) Cells() []string {
	all := []string{Outside}
	for _, n := range c.Machines() {
		all = append(all, n.Host())
	}
	return all
}

// CellPath is a file that belongs to one cell.
func (c Cluster) CellPath(cell string, elem ...string) string {
	return filepath.Join(append([]string{c.Dir, cell}, elem...)...)
}

// PIDFile tells of the cell's first process.
func (c Cluster) PIDFile(cell string) string { return c.CellPath(cell, "pid") }

// LogDir is where one cell's programs write their logs.
func (c Cluster) LogDir(cell string) string { return c.Path("logs", cell) }

// ControlPlane says whether etcd, the API server and their like run here.
func (n Node) ControlPlane() bool { return n.Number == 1 }

// Host is the node's name.
func (n Node) Host() string { return fmt.Sprintf("node%d", n.Number) }

// Own is a file that belongs to this node.
func (n Node) Own(elem ...string) string { return n.CellPath(n.Host(), elem...) }

// IP is the node's address.
func (n Node) IP() string { return fmt.Sprintf("10.88.%d.%d", n.Index, n.Number) }

// PodSubnet is the network of this node's pods, a part of the cluster's.
func (n Node) PodSubnet() string { return fmt.Sprintf("10.%d.%d.0/24", 244+n.Index, n.Number-1) }

// NodeCgroup is the name of this node's cgroup, a child of the cluster's.
func (n Node) NodeCgroup() string { return n.Cgroup() + "/" + n.Host() }
