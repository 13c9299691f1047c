// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package node starts a cluster's parts in their order, from inside the cell, and
// says when the cluster is ready.
package node

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cell"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/forward"
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

// startTime is what a cluster may take to be ready before it counts as failed.
const startTime = 3 * time.Minute

// node is a cluster while it starts and runs.
type node struct {
	spec.Cluster
	programs *supervise.Group
	progress io.Writer
	started  time.Time

	config  *rest.Config
	client  kubernetes.Interface
	dynamic dynamic.Interface
}

// Supervise runs the cluster in the cell that the caller is in until the context
// ends. A failure to get ready is reported and recorded, but what runs is left
// running, to be looked at.
func Supervise(ctx context.Context, c spec.Cluster) error {
	progress := os.NewFile(cell.ProgressFD, "progress")
	n := &node{Cluster: c, programs: supervise.NewGroup(c.Dir), progress: progress, started: time.Now()}
	listener, err := inherited(cell.APIListenerFD)
	if err != nil {
		return err
	}
	services, ctx := errgroup.WithContext(ctx)
	services.Go(func() error { return forward.Serve(ctx, listener, c.APIServer()) })
	err = n.start(ctx, services)
	n.programs.Ready(err)
	if err != nil {
		n.say(Failed, err.Error())
	} else {
		n.say(Ready, "")
	}
	progress.Close()
	err = services.Wait()
	n.programs.Wait()
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
func (n *node) say(kind, text string) {
	line := fmt.Sprintf("%s%6d ms  %s\n", kind, time.Since(n.started).Milliseconds(), text)
	_, _ = io.WriteString(n.progress, line)
	fmt.Print(line)
}

// start starts everything and returns when pods can be run and names resolve.
func (n *node) start(ctx context.Context, services *errgroup.Group) error {
	if err := wiring.Lay(n.Cluster, outside.Addresses()); err != nil {
		return err
	}
	n.say(Step, "network laid")
	if err := n.connect(); err != nil {
		return err
	}
	n.run(ctx, n.controlPlane())
	n.run(ctx, outside.Programs(n.Cluster))

	starting, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	steps, sctx := errgroup.WithContext(starting)
	steps.Go(func() error { return n.importImages(sctx) })
	steps.Go(func() error {
		if err := n.awaitAPI(sctx); err != nil {
			return err
		}
		n.serve(ctx, services)
		n.run(ctx, n.workers())
		return n.awaitNode(sctx)
	})
	if err := steps.Wait(); err != nil {
		return err //nolint:wrapcheck // the steps wrap their own
	}
	return n.awaitDNS(starting)
}

func (n *node) run(ctx context.Context, programs []supervise.Program) {
	for _, p := range programs {
		n.programs.Start(ctx, p)
	}
}

func (n *node) connect() error {
	cfg, err := clientcmd.BuildConfigFromFlags("", n.Path("admin.kubeconfig"))
	if err != nil {
		return fmt.Errorf("read kubeconfig: %w", err)
	}
	cfg.QPS, cfg.Burst = 500, 1000
	n.config = cfg
	if n.client, err = kubernetes.NewForConfig(cfg); err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	if n.dynamic, err = dynamic.NewForConfig(cfg); err != nil {
		return fmt.Errorf("make dynamic client: %w", err)
	}
	return nil
}
