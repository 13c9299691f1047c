// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/apply"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/config"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/outside"
	"github.com/isthmus-mesh/isthmus/test/cluster/internal/spec"
)

// until asks again and again, since what is asked is still starting, and returns
// the last answer if the time runs out.
func until(ctx context.Context, what string, ask func(context.Context) error) error {
	last := errors.New("no answer")
	err := wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		answer := ask(ctx)
		if ctx.Err() == nil {
			last = answer
		}
		return answer == nil, nil
	})
	if err != nil {
		return fmt.Errorf("wait for %s: %w (last: %w)", what, err, last)
	}
	return nil
}

func (n *node) importImages(ctx context.Context) error {
	err := until(ctx, "containerd", func(ctx context.Context) error { return n.ctr(ctx, "version") })
	if err != nil {
		return err
	}
	n.step("containerd answers")
	images, err := filepath.Glob(n.Binary("images/*.tar"))
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	for _, i := range append(images, n.Images...) {
		if err := n.ctr(ctx, "--namespace=k8s.io", "images", "import", "--local", i); err != nil {
			return fmt.Errorf("import %s: %w", i, err)
		}
		n.step("imported " + filepath.Base(i))
	}
	return nil
}

func (n *node) ctr(ctx context.Context, args ...string) error {
	c := exec.CommandContext(ctx, n.Binary("ctr"), append([]string{"--address=" + spec.ContainerdSocket}, args...)...)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("ctr: %w: %s", err, out)
	}
	return nil
}

func (n *node) awaitAPI(ctx context.Context) error {
	err := until(ctx, "the API server", func(ctx context.Context) error {
		return n.client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
	if err != nil {
		return err
	}
	n.step("API server is ready")
	return nil
}

// register makes the node known with the pods' network that it has; nobody else
// gives networks to nodes. The kubelet finds it and says how it is. A node that
// starts again is known already.
func (n *node) register(ctx context.Context) error {
	o := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Host()}}
	o.Spec.PodCIDR, o.Spec.PodCIDRs = n.PodSubnet(), n.PodSubnets()
	_, err := n.client.CoreV1().Nodes().Create(ctx, o, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("register %s: %w", n.Host(), err)
	}
	return nil
}

func (n *node) awaitNode(ctx context.Context) error {
	if n.ControlPlane() {
		if err := n.deployDNS(ctx); err != nil {
			return err
		}
		n.step("DNS deployed")
	}
	err := until(ctx, "the node", func(ctx context.Context) error {
		o, err := n.client.CoreV1().Nodes().Get(ctx, n.Host(), metav1.GetOptions{})
		if err != nil {
			return err //nolint:wrapcheck // wrapped by until
		}
		for _, c := range o.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("node %s is not ready", n.Host())
	})
	if err != nil {
		return err
	}
	n.step("node is ready")
	return until(ctx, "the default service account", func(ctx context.Context) error {
		_, err := n.client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err //nolint:wrapcheck // wrapped by until
	})
}

func (n *node) deployDNS(ctx context.Context) error {
	corefile, err := config.Text(n.Cluster, "Corefile")
	if err != nil {
		return err
	}
	for name, text := range map[string]string{"hosts": outside.HostsFile(n.Cluster), "Corefile": string(corefile)} {
		if err := os.WriteFile(n.Path("dns", name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write DNS configuration: %w", err)
		}
	}
	objects, err := config.Text(n.Cluster, "dns.yaml")
	if err != nil {
		return err
	}
	return until(ctx, "the DNS objects", func(ctx context.Context) error { return apply.YAML(ctx, n.dynamic, objects) })
}

func (n *node) awaitDNS(ctx context.Context) error {
	err := until(ctx, "DNS", func(ctx context.Context) error {
		d, err := n.client.AppsV1().Deployments("kube-system").Get(ctx, "coredns", metav1.GetOptions{})
		if err != nil {
			return err //nolint:wrapcheck // wrapped by until
		}
		if d.Status.AvailableReplicas == 0 {
			return fmt.Errorf("no DNS pod is available yet")
		}
		return nil
	})
	if err != nil {
		return err
	}
	n.step("DNS answers")
	return nil
}
