// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/cell"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/supervise"
)

// Await returns when the running cluster is as good as new: all programs run, the
// API server and DNS answer, and every kubelet has told of its node since it was
// started last. The last is for what the API server says of a node that has just
// died, which is that it is ready.
func Await(ctx context.Context, c spec.Cluster) error {
	access, err := Access(c.Dir)
	if err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", access)
	if err != nil {
		return fmt.Errorf("read kubeconfig: %w", err)
	}
	config.Timeout = 5 * time.Second
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	var last error
	err = wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		is := healthy(ctx, client, c)
		if ctx.Err() == nil {
			last = is
		}
		return is == nil, nil
	})
	if err != nil {
		return fmt.Errorf("wait for cluster %s: %w (last: %w)", c.Name, err, last)
	}
	return nil
}

func healthy(ctx context.Context, client kubernetes.Interface, c spec.Cluster) error {
	for _, name := range c.Cells() {
		if err := Works(c, name); err != nil {
			return err
		}
	}
	if err := client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error(); err != nil {
		return fmt.Errorf("the API server: %w", err)
	}
	for _, n := range c.Machines() {
		if err := isReady(ctx, client, n); err != nil {
			return fmt.Errorf("%s: %w", n.Host(), err)
		}
	}
	d, err := client.AppsV1().Deployments("kube-system").Get(ctx, "coredns", metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("DNS: %w", err)
	}
	if d.Status.AvailableReplicas == 0 {
		return errors.New("no DNS pod is available")
	}
	return nil
}

// Works returns what is wrong with a cell's programs.
func Works(c spec.Cluster, name string) error {
	if _, err := cell.PID(c, name); err != nil {
		return fmt.Errorf("%s is off", name)
	}
	s, err := supervise.Read(c.CellPath(name))
	if err != nil {
		return fmt.Errorf("%s is starting: %w", name, err)
	}
	var bad []error
	for _, p := range s.Programs {
		if p.PID == 0 {
			bad = append(bad, fmt.Errorf("%s on %s does not run", p.Name, name))
		}
	}
	if s.Failure != "" {
		bad = append(bad, fmt.Errorf("%s was never ready: %s", name, s.Failure))
	} else if !s.Ready {
		bad = append(bad, fmt.Errorf("%s is not ready yet", name))
	}
	return errors.Join(bad...)
}

func isReady(ctx context.Context, client kubernetes.Interface, n spec.Node) error {
	o, err := client.CoreV1().Nodes().Get(ctx, n.Host(), metav1.GetOptions{})
	if err != nil {
		return err //nolint:wrapcheck // the caller says of what
	}
	if !slices.ContainsFunc(o.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	}) {
		return errors.New("the node is not ready")
	}
	lease, err := client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(ctx, n.Host(), metav1.GetOptions{})
	if err != nil {
		return err //nolint:wrapcheck // the caller says of what
	}
	s, err := supervise.Read(n.Own())
	if err != nil {
		return err //nolint:wrapcheck // the caller says of what
	}
	i := slices.IndexFunc(s.Programs, func(p supervise.Status) bool { return p.Name == "kubelet" })
	if i < 0 || lease.Spec.RenewTime == nil || lease.Spec.RenewTime.Time.Before(s.Programs[i].Since) {
		return errors.New("the kubelet has not told of the node since it was started")
	}
	return nil
}
