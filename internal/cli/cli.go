// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package cli is isthmusctl, one file per verb. A verb is an Options with
// Complete (fill in what was not said), Validate (refuse what makes no sense) and
// Run (do it); cobra only binds flags to it. Nothing here reads the environment:
// the main package hands in streams and a way to reach the cluster.
package cli

import (
	"context"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// Streams are the program's input and outputs.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Cluster is what verbs ask of a Kubernetes cluster.
type Cluster interface {
	// ConfigMap returns the data of a ConfigMap.
	ConfigMap(ctx context.Context, namespace, name string) (map[string]string, error)
	// Topologies lists the MeshTopologies, by name.
	Topologies(ctx context.Context) ([]Topology, error)
}

// Connect reaches the cluster that the two flags name; empty ones mean the usual.
type Connect func(kubeconfig, context string) (Cluster, error)

// Tool is what verbs share.
type Tool struct {
	Streams Streams
	Connect Connect
	// ReadFile reads a file that a flag names.
	ReadFile func(name string) ([]byte, error)
}

// verb is the life of every command.
type verb interface {
	// Complete fills in what the flags leave open, from arguments and cluster.
	Complete(ctx context.Context, args []string) error
	// Validate refuses combinations that make no sense.
	Validate() error
	// Run does the work.
	Run(ctx context.Context) error
}

// NewCommand is the root of isthmusctl.
func NewCommand(t Tool) *cobra.Command {
	if t.ReadFile == nil {
		t.ReadFile = os.ReadFile
	}
	k := &connection{connect: t.Connect}
	root := &cobra.Command{
		Use:   "isthmusctl",
		Short: "work with an Isthmus mesh",
		Long: "isthmusctl shows and checks an Isthmus mesh. As kubectl-isthmus on the PATH it is\n" +
			"also \"kubectl isthmus\".",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(t.Streams.In)
	root.SetOut(t.Streams.Out)
	root.SetErr(t.Streams.Err)
	f := root.PersistentFlags()
	f.StringVar(&k.kubeconfig, "kubeconfig", "", "file that says how to reach the cluster")
	f.StringVar(&k.context, "context", "", "context of the kubeconfig to use")
	root.AddCommand(
		versionCommand(t),
		injectCommand(t, k),
		validateCommand(t),
		statusCommand(t, k),
	)
	return root
}

// connection reaches the cluster once a verb needs it.
type connection struct {
	connect             Connect
	kubeconfig, context string
}

func (k *connection) cluster() (Cluster, error) { return k.connect(k.kubeconfig, k.context) }

// run is the body of every command.
func run(v verb) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		if err := v.Complete(c.Context(), args); err != nil {
			return err
		}
		if err := v.Validate(); err != nil {
			return err
		}
		return v.Run(c.Context())
	}
}

// defaultNamespace is where control planes live unless a MeshTopology says otherwise.
const defaultNamespace = "isthmus-system"

// defaultTopology is used when no name is given.
const defaultTopology = "default"
