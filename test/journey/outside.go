// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package journey

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// addresses of the outside hosts of the embedded cluster (TEST-NET-3).
var addresses = map[string]string{allowed: "203.0.113.10", other: "203.0.113.20"}

// embedded is the outside of the embedded cluster: a network namespace of its own.
type embedded struct {
	root    string
	cluster string
	index   int
	flags   []string
}

// defaultCluster is the name that devcluster uses unless told.
const defaultCluster = "kube"

func newEmbedded(o Options) embedded {
	if o.Name == "" {
		o.Name = defaultCluster
	}
	return embedded{root: o.Root, cluster: o.Name, index: o.Index, flags: o.Flags}
}

func (o embedded) devcluster(ctx context.Context, args ...string) (string, error) {
	args = append([]string{args[0], "--name", o.cluster}, args[1:]...)
	c := exec.CommandContext(ctx, filepath.Join(o.root, "bin/devcluster"), args...)
	c.Dir = o.root
	out, err := c.Output()
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		return string(out), fmt.Errorf("devcluster %s: %w: %s", args[0], err, strings.TrimSpace(string(ee.Stderr)))
	}
	return string(out), err
}

func (o embedded) Scene() Scene {
	return Scene{Addresses: addresses, Names: true, Service: "LoadBalancer"}
}

func (o embedded) Log(ctx context.Context, host string, since time.Time) ([]Visit, error) {
	out, err := o.devcluster(ctx, "outside", "log", "--host", host)
	if err != nil {
		return nil, err
	}
	return visits(out, since), nil
}

func (o embedded) Call(ctx context.Context, args ...string) (Reply, error) {
	out, err := o.devcluster(ctx, append([]string{"exec", "--outside", "--", filepath.Join(o.root, "bin/testapp")}, patient(args)...)...)
	return parseReply(out, err)
}

// visits reads log lines from the moment on; other lines are passed over.
func visits(log string, since time.Time) []Visit {
	var out []Visit
	for in := bufio.NewScanner(strings.NewReader(log)); in.Scan(); {
		var v Visit
		if json.Unmarshal(in.Bytes(), &v) == nil && !v.Time.Before(since) {
			out = append(out, v)
		}
	}
	return out
}

// pods is an outside made of pods in a namespace that is no member, for clusters
// that come without one. What it cannot show: that the address of a node or of
// the internet is treated like theirs.
type pods struct {
	env       *Env
	addresses map[string]string
}

const podsNamespace = "isthmus-outside"

func podsManifest() string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n", podsNamespace)
	for _, host := range []string{allowed, other} {
		fmt.Fprintf(&b, `---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: %[2]s, labels: {app: %[1]s}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: isthmus/testapp:0.1.0
    imagePullPolicy: IfNotPresent
    args: [serve, --name=%[1]s, "--http=:80", "--https=:443", "--self-signed=*.outside.test", "--tcp=:9000", "--udp=:9001", "--grpc=:50051"]
    securityContext: {runAsUser: 0}
`, host, podsNamespace)
	}
	return b.String()
}

// startPods starts the outside and waits until it answers.
func startPods(ctx context.Context, e *Env) (Outside, error) {
	if err := e.Kube.Apply(ctx, podsManifest()); err != nil {
		return nil, err
	}
	if err := e.Kube.PodsReady(ctx, podsNamespace, time.Minute); err != nil {
		return nil, err
	}
	p := &pods{env: e, addresses: map[string]string{}}
	for _, host := range []string{allowed, other} {
		pod, err := e.Pod(ctx, podsNamespace, host)
		if err != nil {
			return nil, err
		}
		p.addresses[host] = pod.Status.PodIP
	}
	return p, nil
}

func (p *pods) Scene() Scene {
	return Scene{Addresses: p.addresses, Service: "ClusterIP"}
}

func (p *pods) Log(ctx context.Context, host string, since time.Time) ([]Visit, error) {
	out, err := p.env.Kube.Logs(ctx, podsNamespace, host, "app", since.Add(-time.Second))
	if err != nil {
		return nil, err
	}
	return visits(out, since), nil
}

func (p *pods) Call(ctx context.Context, args ...string) (Reply, error) {
	return p.env.Call(ctx, podsNamespace, other, args...)
}
