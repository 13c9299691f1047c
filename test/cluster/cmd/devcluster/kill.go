// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cluster"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/control"
)

// targets is what kill and start name, for their help.
const targets = "etcd, apiserver, controller-manager, scheduler, containerd, kubelet, proxy, coredns or “node NAME”"

func killCommand(w *where) *cobra.Command {
	var node, signal string
	var hold bool
	c := &cobra.Command{
		Use:   "kill {PROGRAM | node NAME}",
		Short: "send a program a signal, or cut a node's power; both start again: " + targets,
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := parseSignal(signal)
			if err != nil {
				return err
			}
			if args[0] == "node" && c.Flags().Changed("signal") {
				return errors.New("a node's power has no --signal")
			}
			return w.control(node, args, control.Request{Signal: s, Hold: hold})
		},
	}
	c.Flags().StringVar(&node, "node", "", "of which node; the first that has such a program, unless told")
	c.Flags().StringVar(&signal, "signal", "KILL", "name or number of the signal")
	c.Flags().BoolVar(&hold, "no-restart", false, "do not start it again until devcluster start")
	return c
}

func startCommand(w *where) *cobra.Command {
	var node string
	c := &cobra.Command{
		Use:   "start {PROGRAM | node NAME}",
		Short: "start what kill --no-restart has ended",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			return w.control(node, args, control.Request{Start: true})
		},
	}
	c.Flags().StringVar(&node, "node", "", "on which node; the first that has such a program, unless told")
	return c
}

// control has the request done to what the arguments name.
func (w *where) control(node string, args []string, r control.Request) error {
	s, err := w.running()
	if err != nil {
		return err
	}
	isNode := args[0] == "node"
	switch {
	case isNode && len(args) == 1:
		return fmt.Errorf("say which node, as in “node %s”", s.Machines()[len(s.Machines())-1].Host())
	case !isNode && len(args) == 2:
		return fmt.Errorf("%q: want one program, or “node NAME”", strings.Join(args, " "))
	case isNode:
		r.Name = args[1]
		return control.Ask(s.KeeperSocket(), r) //nolint:wrapcheck // says all
	}
	r.Name = program(args[0])
	return cluster.Control(s, node, r) //nolint:wrapcheck // says all
}

// program is the name of a program that goes by a shorter one too.
func program(name string) string {
	switch name {
	case "apiserver", "controller-manager", "scheduler", "proxy":
		return "kube-" + name
	}
	return name
}

func parseSignal(s string) (syscall.Signal, error) {
	var number int
	if n, err := fmt.Sscan(s, &number); n == 1 && err == nil && number > 0 && number < 65 {
		return syscall.Signal(number), nil
	}
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if known := unix.SignalNum(name); known != 0 {
		return known, nil
	}
	return 0, fmt.Errorf("--signal %s: want a signal's name or number, such as TERM", s)
}
