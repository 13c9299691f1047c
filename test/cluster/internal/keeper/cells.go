// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cell"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cgroup"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/control"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/node"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/outside"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/supervise"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/wiring"
)

// keeper's fields below the channels belong to keep.
type keeper struct {
	Order
	progress  io.WriteCloser
	listener  *os.File // for the API server's clients; lasts longer than its node
	abandoned <-chan struct{}
	said      chan line
	ended     chan *running
	commands  chan command

	outside *os.File // the router's network namespace
	cells   map[string]*running
	ready   map[string]bool
}

type running struct{ *cell.Cell }

// line is one of a cell's progress.
type line struct{ cell, text string }

type command struct {
	control.Request
	done chan error
}

func (k *keeper) keep(ctx context.Context) error {
	if err := k.prepare(); err != nil {
		return k.failed(err)
	}
	k.pass(line{text: node.Step + "certificates and configuration written"})
	socket, err := control.Listen(k.Cluster.KeeperSocket())
	if err != nil {
		return k.failed(err)
	}
	go func() {
		if err := control.Serve(ctx, socket, k.command); err != nil {
			fmt.Println(err)
		}
	}()
	if err := k.startAll(); err != nil {
		return k.failed(err)
	}
	waiting := true
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.abandoned:
			if waiting || k.Foreground {
				return errAbandoned
			}
			k.abandoned = nil
		case l := <-k.said:
			if waiting {
				waiting = k.pass(l)
			}
		case r := <-k.ended:
			if k.cells[r.Name] == r {
				return k.failed(fmt.Errorf("%s has ended by itself, see %s", r.Name, k.Cluster.LogDir(r.Name)))
			}
		case c := <-k.commands:
			c.done <- k.do(c.Request)
		}
	}
}

// failed tells whoever waits for the cluster that it is no more.
func (k *keeper) failed(err error) error {
	_, _ = io.WriteString(k.progress, node.Failed+err.Error()+"\n") // nobody may be there
	return err
}

// pass tells whoever waits for the cluster how far it is, and whether it is to be
// waited for still.
func (k *keeper) pass(l line) (waiting bool) {
	text := l.text
	switch {
	case strings.HasPrefix(text, node.Ready):
		k.ready[l.cell] = true
		if len(k.ready) < len(k.Cluster.Cells()) {
			return true
		}
	case strings.HasPrefix(text, node.Step) && l.cell != "" && k.Cluster.Nodes > 1:
		text = node.Step + l.cell + ": " + strings.TrimPrefix(text, node.Step)
	}
	_, _ = io.WriteString(k.progress, text+"\n")
	return strings.HasPrefix(text, node.Step)
}

func (k *keeper) startAll() error {
	k.ready = map[string]bool{}
	var err error
	if k.outside, err = wiring.Outside(k.Cluster, outside.Addresses(k.Cluster)); err != nil {
		return err //nolint:wrapcheck // says all
	}
	if err := k.start(spec.Outside, k.outside); err != nil {
		return err
	}
	for _, n := range k.Cluster.Machines() {
		if err := k.startNode(n); err != nil {
			return err
		}
	}
	return nil
}

func (k *keeper) startNode(n spec.Node) error {
	if err := cgroup.Make(n.NodeCgroup()); err != nil {
		return err //nolint:wrapcheck // says all
	}
	netns, err := wiring.Connect(n, k.outside)
	if err != nil {
		return err //nolint:wrapcheck // says all
	}
	defer netns.Close()
	if n.ControlPlane() {
		return k.start(n.Host(), netns, k.listener)
	}
	return k.start(n.Host(), netns)
}

func (k *keeper) start(name string, netns *os.File, files ...*os.File) error {
	if err := supervise.Forget(k.Cluster.CellPath(name)); err != nil {
		return err //nolint:wrapcheck // says all
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	c, err := cell.Start(k.Cluster, name, netns, append([]*os.File{w}, files...)...)
	w.Close()
	if err != nil {
		r.Close()
		return fmt.Errorf("start %s: %w", name, err)
	}
	run := &running{c}
	k.cells[name] = run
	go func() {
		defer r.Close()
		for s := bufio.NewScanner(r); s.Scan(); {
			k.said <- line{name, s.Text()}
		}
	}()
	go func() {
		<-c.Ended
		k.ended <- run
	}()
	return nil
}

// command has keep do what is asked.
func (k *keeper) command(r control.Request) error {
	c := command{r, make(chan error, 1)}
	k.commands <- c
	return <-c.done
}

// do switches a node off, and on again unless it is to stay off.
func (k *keeper) do(r control.Request) error {
	n, err := k.Cluster.Machine(r.Name)
	if err != nil {
		return err //nolint:wrapcheck // says all
	}
	c, on := k.cells[r.Name]
	switch {
	case r.Start && on:
		return nil
	case r.Start:
		return k.startNode(n)
	case !on:
		return errors.New(r.Name + " is off")
	}
	delete(k.cells, r.Name)
	c.Kill()
	// A machine that starts has no cgroups, and the kubelet takes those it finds
	// for pods'.
	ctx, cancel := context.WithTimeout(context.Background(), control.Timeout)
	defer cancel()
	if err := cgroup.Remove(ctx, n.NodeCgroup()); err != nil {
		return err //nolint:wrapcheck // says all
	}
	if r.Hold {
		return nil
	}
	return k.startNode(n)
}

func (k *keeper) killAll() {
	var all sync.WaitGroup
	for _, r := range k.cells {
		all.Go(r.Kill)
	}
	all.Wait()
}
