// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package full

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/isthmus-mesh/isthmus/test/journey"
)

const (
	// late is how much later than the rest isthmusd comes up.
	late = 2 * time.Minute
	// recovery is what a busy machine may take for all of it.
	recovery = 6 * time.Minute
)

// TestOffAndOn cuts a whole cluster's power. It comes up by itself, in whatever
// order its parts do, and nothing gets out that could not before.
func TestOffAndOn(t *testing.T) {
	env := start(t, "power")
	if err := env.SwitchTo(t.Context(), journey.EgressGateway); err != nil {
		t.Fatal(err)
	}
	nonce, since := env.Nonce(), time.Now()
	if err := env.Kube.Apply(t.Context(), strings.NewReplacer("NONCE", nonce, "ADDRESS", env.Outside.Scene().Addresses["other"]).Replace(tireless)); err != nil {
		t.Fatal(err)
	}
	if err := env.Kube.PodsReady(t.Context(), journey.Shop, recovery); err != nil {
		t.Fatal(err)
	}
	devcluster(t, "power", "exec", "--", "ctr", "--address=/run/ctd/containerd.sock", "--namespace=k8s.io", "images", "rm", "docker.io/isthmus/isthmusd:0.1.0")
	devcluster(t, "power", "kill", "node", "node1")
	begin := time.Now()
	awaitAPI(t, env)
	t.Logf("the API server is back after %v", time.Since(begin).Round(time.Second))
	staysAway(t, env, begin.Add(late))
	devcluster(t, "power", "load", "bin/images/isthmusd.tar")

	awaitJourney(t, env)
	t.Logf("everything works again %v after the cut", time.Since(begin).Round(time.Second))
	vs, err := env.Visits(t.Context(), "other", since, func(v journey.Visit) bool { return strings.Contains(v.Detail, nonce) })
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vs {
		t.Errorf("got out around the cut: %s from %s at %v", v.Kind, v.From(), v.Time)
	}
}

// tireless is a pod without a proxy that keeps trying to get out, from its first
// moment on, before the cut and after.
const tireless = `apiVersion: apps/v1
kind: Deployment
metadata: {name: tireless, namespace: shop}
spec:
  selector: {matchLabels: {app: tireless}}
  template:
    metadata: {labels: {app: tireless, sidecar.istio.io/inject: "false"}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: udp, image: "isthmus/testapp:0.1.0", imagePullPolicy: IfNotPresent, args: [udp, "ADDRESS:9001", --line, NONCE, --count=1000000, --interval=100ms, --timeout=500ms]}
      - {name: http, image: "isthmus/testapp:0.1.0", imagePullPolicy: IfNotPresent, args: [http, "http://ADDRESS/NONCE", --count=1000000, --interval=100ms, --timeout=500ms]}
`

// awaitAPI waits until the API server answers again.
func awaitAPI(t *testing.T, env *journey.Env) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), time.Second, recovery, false, func(ctx context.Context) (bool, error) {
		return env.Kube.Typed.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() == nil, nil
	})
	if err != nil {
		t.Fatalf("the API server does not come back: %v", err)
	}
}

// staysAway waits for the moment, and that the node still has no control plane
// then, for want of its image.
func staysAway(t *testing.T, env *journey.Env, until time.Time) {
	t.Helper()
	var waits string
	err := wait.PollUntilContextTimeout(t.Context(), time.Second, recovery, true, func(ctx context.Context) (bool, error) {
		p, err := env.Kube.Typed.CoreV1().Pods(env.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=isthmusd"})
		if err != nil || len(p.Items) == 0 || time.Now().Before(until) {
			return false, nil //nolint:nilerr // the API server is coming up
		}
		for _, c := range p.Items[0].Status.ContainerStatuses {
			if c.State.Waiting != nil {
				waits = c.State.Waiting.Reason
			}
		}
		return waits != "", nil
	})
	if err != nil {
		t.Fatalf("isthmusd was not away: %v", err)
	}
	t.Logf("after %v isthmusd is not up: %s", late, waits)
}

// awaitJourney waits until every flow of the topology is as told, all in one round.
func awaitJourney(t *testing.T, env *journey.Env) {
	t.Helper()
	var differ []string
	err := wait.PollUntilContextTimeout(t.Context(), 2*time.Second, recovery, true, func(ctx context.Context) (bool, error) {
		differ = differ[:0]
		for _, f := range journey.Flows(journey.EgressGateway) {
			if o := f.Probe(ctx, env); !o.OK {
				differ = append(differ, fmt.Sprintf("%s: want %s, got %s (known by: %s)", f.Name, f.Expect, o.Seen, o.Known))
				break // whatever comes later in the table needs it too
			}
		}
		return len(differ) == 0, nil
	})
	if err != nil {
		t.Fatalf("it does not come up by itself: %s", strings.Join(differ, "\n"))
	}
}
