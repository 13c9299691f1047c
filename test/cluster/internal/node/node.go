// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package node starts a cell's parts in their order, from inside the cell, and says
// when it is ready.
package node

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cell"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/control"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/forward"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/loadbalancer"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/outside"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/supervise"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/wiring"
)

// The words that begin a line of progress; whoever started the cluster waits for
// one of the last two.
const (
	Step   = "step "
	Failed = "failed "
	Ready  = "ready "
)

// startTime is what a cell may take to be ready before it counts as failed.
const startTime = 3 * time.Minute

// node is one of a cluster's machines while it starts and runs.
type node struct {
	spec.Node
	programs *supervise.Group
	progress io.WriteCloser

	config  *rest.Config
	client  kubernetes.Interface
	dynamic dynamic.Interface
}

// Supervise runs the node, in whose cell the caller is, until the context ends. A
// failure to get ready is reported and recorded, but what runs is left running, to
// be looked at.
func Supervise(ctx context.Context, m spec.Node) error {
	n := &node{Node: m, programs: supervise.NewGroup(m.Own(), m.LogDir(m.Host())), progress: os.NewFile(cell.ProgressFD, "progress")}
	return run(ctx, n.programs, n.progress, n.do, func(ctx context.Context, services *errgroup.Group) error {
		if m.ControlPlane() {
			listener, err := inherited(cell.APIListenerFD)
			if err != nil {
				return err
			}
			services.Go(func() error { return forward.Serve(ctx, listener, m.APIServer()) })
		}
		return n.start(ctx, services)
	})
}

// SuperviseOutside runs what is not a node in the same way.
func SuperviseOutside(ctx context.Context, c spec.Cluster) error {
	programs := supervise.NewGroup(c.CellPath(spec.Outside), c.LogDir(spec.Outside))
	progress := os.NewFile(cell.ProgressFD, "progress")
	return run(ctx, programs, progress, programs.Do, func(ctx context.Context, services *errgroup.Group) error {
		for _, p := range outside.Programs(c) {
			programs.Start(ctx, p)
		}
		_, client, _, err := connect(c)
		if err != nil {
			return err
		}
		services.Go(func() error {
			return loadbalancer.Run(ctx, client, netip.MustParsePrefix(c.LoadBalancerCIDR()), func(r loadbalancer.Routes) error { return wiring.Balance(r) })
		})
		return nil
	})
}

// run starts what start starts and keeps it running, and takes commands.
func run(ctx context.Context, programs *supervise.Group, progress io.WriteCloser, do func(control.Request) error, start func(context.Context, *errgroup.Group) error) error {
	socket, err := control.Listen(spec.ControlSocket)
	if err != nil {
		return err //nolint:wrapcheck // says all
	}
	services, ctx := errgroup.WithContext(ctx)
	services.Go(func() error { return control.Serve(ctx, socket, do) })
	err = start(ctx, services)
	programs.Ready(err)
	if err != nil {
		say(progress, Failed, err.Error())
	} else {
		say(progress, Ready, "")
	}
	progress.Close()
	err = services.Wait()
	programs.Wait()
	return err //nolint:wrapcheck // services wrap their own
}

func inherited(fd uintptr) (net.Listener, error) {
	f := os.NewFile(fd, "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("take over the API server's port: %w", err)
	}
	return l, nil
}

// say reports progress. Nobody may be there to hear it.
func say(progress io.Writer, kind, text string) {
	line := kind + text + "\n"
	_, _ = io.WriteString(progress, line)
	fmt.Print(time.Now().Format(time.RFC3339Nano), " ", line)
}

func (n *node) step(text string) { say(n.progress, Step, text) }

// start starts everything and returns when pods can be run and names resolve.
func (n *node) start(ctx context.Context, services *errgroup.Group) error {
	var err error
	if n.config, n.client, n.dynamic, err = connect(n.Cluster); err != nil {
		return err
	}
	n.run(ctx, n.runtime())
	if n.ControlPlane() {
		n.run(ctx, n.controlPlane())
	}
	starting, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	steps, sctx := errgroup.WithContext(starting)
	steps.Go(func() error { return n.importImages(sctx) })
	steps.Go(func() error {
		if err := n.awaitAPI(sctx); err != nil {
			return err
		}
		if err := n.register(sctx); err != nil {
			return err
		}
		n.serve(ctx, services)
		n.run(ctx, n.workers())
		return n.awaitNode(sctx)
	})
	if err := steps.Wait(); err != nil {
		return err //nolint:wrapcheck // the steps wrap their own
	}
	if n.ControlPlane() {
		return n.awaitDNS(starting)
	}
	return nil
}

func (n *node) run(ctx context.Context, programs []supervise.Program) {
	for _, p := range programs {
		n.programs.Start(ctx, p)
	}
}

func connect(c spec.Cluster) (*rest.Config, kubernetes.Interface, dynamic.Interface, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", c.Path("admin.kubeconfig"))
	if err != nil {
		return nil, nil, nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	cfg.QPS, cfg.Burst = 500, 1000
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("make client: %w", err)
	}
	d, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("make dynamic client: %w", err)
	}
	return cfg, client, d, nil
}
