// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cell"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cluster"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
)

func kubectlCommand(w *where) *cobra.Command {
	return &cobra.Command{
		Use:                "kubectl [--name CLUSTER] ARGS…",
		Short:              "run kubectl on a cluster, from here",
		DisableFlagParsing: true, // all but --name and --dir in front are kubectl's
		RunE: func(c *cobra.Command, args []string) error {
			args, err := w.take(c, args)
			if err != nil {
				return err
			}
			dir, err := w.cluster()
			if err != nil {
				return err
			}
			access, err := cluster.Access(dir)
			if err != nil {
				return err //nolint:wrapcheck // says all
			}
			s, err := w.running()
			if err != nil {
				return err
			}
			k := exec.CommandContext(c.Context(), s.Binary("kubectl"), args...)
			k.Env = append(os.Environ(), "KUBECONFIG="+access)
			k.Stdin, k.Stdout, k.Stderr = os.Stdin, os.Stdout, os.Stderr
			return k.Run() //nolint:wrapcheck // main takes the exit status from it
		},
	}
}

// take takes the flags that say which cluster off the front of the arguments.
func (w *where) take(c *cobra.Command, args []string) ([]string, error) {
	for len(args) > 0 {
		name, value, ok := strings.Cut(args[0], "=")
		if name != "--name" && name != "--dir" {
			break
		}
		rest := args[1:]
		if !ok {
			if len(rest) == 0 {
				return nil, fmt.Errorf("%s needs a value", name)
			}
			value, rest = rest[0], rest[1:]
		}
		if err := c.InheritedFlags().Set(name[2:], value); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		args = rest
	}
	return args, nil
}

func execCommand(w *where) *cobra.Command {
	outside, node := false, ""
	c := &cobra.Command{
		Use:   "exec [--node NODE | --outside] -- COMMAND [ARGS]",
		Short: "run a command on a node's network, or outside of the cluster",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := w.running()
			if err != nil {
				return err
			}
			place := node
			if outside {
				place = spec.Outside
			} else if _, err := s.Machine(node); err != nil {
				return err //nolint:wrapcheck // says all
			}
			cmd, err := command(s, args)
			if err != nil {
				return err
			}
			cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
			return cell.Run(s, place, cmd) //nolint:wrapcheck // main takes the exit status from it
		},
	}
	c.Flags().StringVar(&node, "node", "node1", "on which node")
	c.Flags().BoolVar(&outside, "outside", false, "beyond the router instead of on a node")
	c.MarkFlagsMutuallyExclusive("node", "outside")
	return c
}

// command finds the program among the cluster's before the machine's.
func command(s spec.Cluster, args []string) (*exec.Cmd, error) {
	program := s.Binary(args[0])
	if _, err := os.Stat(program); err != nil || filepath.Base(args[0]) != args[0] {
		if program, err = exec.LookPath(args[0]); err != nil {
			return nil, fmt.Errorf("find command: %w", err)
		}
	}
	program, err := filepath.Abs(program)
	if err != nil {
		return nil, fmt.Errorf("find command: %w", err)
	}
	cmd := exec.Command(program, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Env = []string{"KUBECONFIG=" + s.Path("admin.kubeconfig"), "TERM=" + os.Getenv("TERM")}
	return cmd, nil
}

func logsCommand(w *where) *cobra.Command {
	var node string
	c := &cobra.Command{
		Use:   "logs PROGRAM",
		Short: "print the log of one of the cluster's programs",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			dir, err := w.cluster()
			if err != nil {
				return err
			}
			all, err := filepath.Glob(filepath.Join(dir, "logs", node, args[0]+".log"))
			if err != nil {
				return fmt.Errorf("find log: %w", err)
			}
			if len(all) == 0 {
				names, _ := filepath.Glob(filepath.Join(dir, "logs", "*", "*.log"))
				return fmt.Errorf("%s has no log; there are %v", args[0], names)
			}
			f, err := os.Open(all[0]) // the first node's
			if err != nil {
				return fmt.Errorf("open log: %w", err)
			}
			defer f.Close()
			if _, err := io.Copy(c.OutOrStdout(), f); err != nil {
				return fmt.Errorf("print log: %w", err)
			}
			return nil
		},
	}
	c.Flags().StringVar(&node, "node", "*", "of which node; the first that has such a program, unless told")
	return c
}

func loadCommand(w *where) *cobra.Command {
	return &cobra.Command{
		Use:   "load ARCHIVE…",
		Short: "import image archives into the cluster",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := w.running()
			if err != nil {
				return err
			}
			return cluster.Load(s, args) //nolint:wrapcheck // says all
		},
	}
}
