// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package spec says what one cluster is: its name, its directory and the
// addresses that follow from its index. Every other package gets it by value;
// it is written to the cluster's directory, from where the processes inside read it.
package spec

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// MaxIndex is the last index whose pod network still is one: 10.255.0.0/16.
const MaxIndex = 11

// ContainerdSocket is containerd's socket as seen inside the cell. It is below
// /run because a socket's path must be short, which a work directory's is not.
const ContainerdSocket = "/run/ctd/containerd.sock"

// ControlSocket is where a cell's supervisor takes commands, as seen inside it.
const ControlSocket = "/run/devcluster.sock"

// Cluster is everything that is decided before anything is started.
type Cluster struct {
	Name     string   `json:"name"`
	Index    int      `json:"index"`
	Nodes    int      `json:"nodes"`
	IPFamily string   `json:"ipFamily"` // ipv4, or dual for IPv6 as well
	Dir      string   `json:"dir"`      // absolute; belongs to this cluster alone
	Bin      string   `json:"bin"`      // absolute; see package binaries
	Images   []string `json:"images"`   // archives imported while the cluster starts
	TestApp  string   `json:"testApp"`  // binary that plays the hosts outside
	APIPort  int      `json:"apiPort"`  // on the host's 127.0.0.1
	Audit    bool     `json:"audit"`    // write every request to the API server down
	Policy   Policy   `json:"policy"`
}

// Policy says how NetworkPolicies are enforced. The settings are where CNIs that
// all pass Kubernetes' conformance tests differ.
type Policy struct {
	Disabled    bool          `json:"disabled"`
	Deny        string        `json:"deny"`        // drop or reject
	Established string        `json:"established"` // keep or cut connections that a new policy forbids
	Blocks      string        `json:"blocks"`      // whether an ipBlock covers the node's address: any or not-node
	Translation string        `json:"translation"` // an egress ipBlock is compared before or after that of a Service's address
	Window      time.Duration `json:"window"`      // how long a new pod stays unfiltered
}

var validName = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$`)

// Validate returns what is wrong with the cluster, or nil.
func (c Cluster) Validate() error {
	var errs []error
	if !validName.MatchString(c.Name) {
		errs = append(errs, fmt.Errorf("name %q: want at most 20 lower case letters, digits and dashes", c.Name))
	}
	if c.Index < 0 || c.Index > MaxIndex {
		errs = append(errs, fmt.Errorf("index %d: want 0 to %d", c.Index, MaxIndex))
	}
	if c.Nodes < 1 || c.Nodes > MaxNodes {
		errs = append(errs, fmt.Errorf("nodes %d: want 1 to %d", c.Nodes, MaxNodes))
	}
	if !filepath.IsAbs(c.Dir) || !filepath.IsAbs(c.Bin) {
		errs = append(errs, fmt.Errorf("directories %q and %q: want absolute paths", c.Dir, c.Bin))
	}
	errs = append(errs, oneOf("IP family", c.IPFamily, IPv4, Dual), oneOf("deny", c.Policy.Deny, "drop", "reject"),
		oneOf("established", c.Policy.Established, "cut", "keep"),
		oneOf("blocks", c.Policy.Blocks, "any", "not-node"),
		oneOf("translation", c.Policy.Translation, "after", "before"))
	return errors.Join(errs...)
}

func oneOf(name, value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return fmt.Errorf("%s %q: want %s", name, value, strings.Join(allowed, " or "))
}

// Path is a file below the cluster's directory.
func (c Cluster) Path(elem ...string) string {
	return filepath.Join(append([]string{c.Dir}, elem...)...)
}

// Binary is a program of the cluster.
func (c Cluster) Binary(name string) string { return filepath.Join(c.Bin, name) }

// NodeIP is the first node's address, on which the API server listens too.
func (c Cluster) NodeIP() string { return Node{Cluster: c, Number: 1}.IP() }

// RouterIP is the address of the outside on the nodes' network.
func (c Cluster) RouterIP() string { return fmt.Sprintf("10.88.%d.254", c.Index) }

// PodCIDR is the network of all pods.
func (c Cluster) PodCIDR() string { return fmt.Sprintf("10.%d.0.0/16", 244+c.Index) }

// ServiceCIDR is the network of cluster IPs.
func (c Cluster) ServiceCIDR() string { return c.serviceNet() + ".0.0/16" }

// APIServiceIP is the cluster IP of the API server.
func (c Cluster) APIServiceIP() string { return c.serviceNet() + ".0.1" }

// DNSServiceIP is the cluster IP of the cluster's DNS.
func (c Cluster) DNSServiceIP() string { return c.serviceNet() + ".0.10" }

// LoadBalancerCIDR is where Services of type LoadBalancer get their addresses.
func (c Cluster) LoadBalancerCIDR() string { return fmt.Sprintf("198.18.%d.0/24", c.Index) }

// Networks are the cluster's networks beyond its nodes' own addresses.
func (c Cluster) Networks() []string {
	return []string{c.PodCIDR(), c.ServiceCIDR(), c.LoadBalancerCIDR()}
}

func (c Cluster) serviceNet() string { return fmt.Sprintf("10.%d", 96+c.Index) }

// APIServer is the address at which processes inside reach the API server.
func (c Cluster) APIServer() string { return c.NodeIP() + ":6443" }

// Cgroup is the name of the cluster's cgroup in every hierarchy. Clusters of
// one name in two directories have two.
func (c Cluster) Cgroup() string {
	h := fnv.New32a()
	h.Write([]byte(c.Dir))
	return fmt.Sprintf("devcluster-%s-%08x", c.Name, h.Sum32())
}

// KeeperSocket is where the cluster's keeper takes commands. It is no file's name.
func (c Cluster) KeeperSocket() string { return "@" + c.Cgroup() }

const file = "cluster.json"

// Save writes the cluster to its directory.
func (c Cluster) Save() error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("encode cluster: %w", err)
	}
	if err := os.WriteFile(c.Path(file), b, 0o644); err != nil {
		return fmt.Errorf("save cluster: %w", err)
	}
	return nil
}

// Load reads the cluster that Save wrote to dir.
func Load(dir string) (Cluster, error) {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return Cluster{}, fmt.Errorf("load cluster: %w", err)
	}
	var c Cluster
	if err := json.Unmarshal(b, &c); err != nil {
		return Cluster{}, fmt.Errorf("load cluster from %s: %w", dir, err)
	}
	return c, nil
}
