// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	_ "embed"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/test/journey"
	"github.com/isthmus-mesh/isthmus/test/kube"
)

//go:embed newcomers.yaml
var newcomersManifest string

const newcomersNamespace = "newcomers"

// settle is how long a pod may take to run on a busy machine.
const settle = 3 * time.Minute

// newcomers applies a namespace and all who live in it at once. Whoever of them
// sends anything but through the gateway is seen outside, by a nonce.
func newcomers(t *testing.T) {
	switchTo(t, journey.EgressGateway)
	exempt(t, `{"name": "bare", "namespace": "newcomers", "serviceAccount": "bare", "allow": ["OptOut"],
		"reason": "It shows that the wall holds those whom the guard lets in.", "expires": "2099-12-31T00:00:00Z"}`)
	nonce, since := env.Nonce(), time.Now().Add(-time.Second)
	manifest := strings.NewReplacer("NONCE", nonce, "ADDRESS", env.Outside.Scene().Addresses["other"]).Replace(newcomersManifest)
	t.Cleanup(func() { removeNamespace(t, newcomersNamespace) })
	if err := env.Kube.Apply(t.Context(), manifest); err != nil {
		t.Fatal(err)
	}
	t.Run("a job ends, and went out by the gateway", func(t *testing.T) {
		awaitCount(t, "batch/v1", "Job", "errand", 1, "status", "succeeded")
		seenFromGateway(t, nonce+"-errand", since)
	})
	t.Run("a DaemonSet is ready, and goes out by the gateway", func(t *testing.T) {
		awaitCount(t, "apps/v1", "DaemonSet", "everywhere", 1, "status", "numberReady")
		id := env.Nonce()
		r, err := env.Call(t.Context(), newcomersNamespace, "everywhere", "http", "http://allowed.outside.test/"+id)
		if err != nil {
			t.Fatal(err)
		}
		if r.Status != 200 {
			t.Errorf("the registered host answered %s", r)
		}
		seenFromGateway(t, id, since)
	})
	t.Run("none of a crowd got out from its first moment on", func(t *testing.T) {
		awaitCount(t, "apps/v1", "Deployment", "crowd", 6, "status", "availableReplicas")
		triedAndFailed(t, "crowd", 6)
		unseen(t, nonce+"-crowd", since)
	})
	t.Run("a pod without a proxy is refused, and its owner says why", func(t *testing.T) {
		awaitRefusal(t, newcomersNamespace, "ReplicaSet", "unasked", "OptOut: label sidecar.istio.io/inject")
	})
	t.Run("a pod without a proxy that is exempt is cut off", func(t *testing.T) {
		awaitCount(t, "apps/v1", "Deployment", "bare", 1, "status", "availableReplicas")
		triedAndFailed(t, "bare", 1)
		unseen(t, nonce+"-bare", since)
	})
	t.Run("one who is no member is seen", func(t *testing.T) {
		id := env.Nonce()
		for _, call := range [][]string{{"udp", env.Outside.Scene().Addresses["other"] + ":9001", "--line", id}, {"http", "http://" + env.Outside.Scene().Addresses["other"] + "/" + id}} {
			if _, err := env.Call(t.Context(), journey.Strangers, "stranger", call...); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(visits(t, "other", id, since)); n != 2 {
			t.Errorf("the host saw %d of its 2 nonces: this is how the others would have been seen", n)
		}
	})
}

// exempt adds an exemption to the MeshTopology's guard until the test ends.
func exempt(t *testing.T, exemption string) {
	t.Helper()
	ri, err := env.Kube.Resource(t.Context(), journey.TopologyKind, "")
	if err != nil {
		t.Fatal(err)
	}
	const all = "/spec/egress/guard/exemptions/"
	change := func(ctx context.Context, patch string) error {
		_, err := ri.Patch(ctx, "default", types.JSONPatchType, []byte(patch), metav1.PatchOptions{})
		return err
	}
	if err := change(t.Context(), `[{"op": "add", "path": "`+all+`0", "value": `+exemption+`}]`); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := change(context.WithoutCancel(t.Context()), `[{"op": "remove", "path": "`+all+`0"}]`); err != nil {
			t.Error(err)
		}
	})
	switchTo(t, journey.EgressGateway)
}

// advice is how a refusal begins to say what to do.
var advice = regexp.MustCompile(`\b(remove|use|name|target|restart|edit|leave it out|do not mount)\b`)

// awaitRefusal waits until an owner of pods says that the guard refused them, why,
// and what to do.
func awaitRefusal(t *testing.T, namespace, kind, name, want string) {
	t.Helper()
	err := env.Kube.AwaitEvent(t.Context(), namespace, kind, name, "FailedCreate", settle, func(message string) bool {
		return strings.Contains(message, "denied request: "+want) && advice.MatchString(message)
	})
	if err != nil {
		t.Error(err)
	}
}

// awaitCount waits until the field of a workload of the newcomers' is at least n.
func awaitCount(t *testing.T, apiVersion, kind, name string, n int64, field ...string) {
	t.Helper()
	gvk := schema.FromAPIVersionAndKind(apiVersion, kind)
	err := env.Kube.Await(t.Context(), gvk, newcomersNamespace, name, settle, func(o *unstructured.Unstructured) (bool, string) {
		have, _, _ := unstructured.NestedInt64(o.Object, field...)
		return have >= n, fmt.Sprintf("%s is %d of %d", strings.Join(field, "."), have, n)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// triedAndFailed looks into the logs of each container of an app: each has made
// calls, and none was answered.
func triedAndFailed(t *testing.T, app string, pods int) {
	t.Helper()
	list, err := env.Kube.Typed.CoreV1().Pods(newcomersNamespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != pods {
		t.Errorf("%d pods of %s, want %d", len(list.Items), app, pods)
	}
	for _, p := range list.Items {
		for _, c := range p.Spec.Containers {
			if c.Name == "istio-proxy" {
				continue
			}
			log := awaitLog(t, &p, c.Name)
			if strings.Contains(log, `"ok":true`) {
				t.Errorf("%s of %s was answered:\n%s", c.Name, p.Name, log)
			}
		}
	}
}

// awaitLog waits for the first call of a container to be reported.
func awaitLog(t *testing.T, p *corev1.Pod, container string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settle)
	defer cancel()
	log, err := env.Kube.AwaitLog(ctx, p.Namespace, p.Name, container, `"ok":`)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func visits(t *testing.T, host, nonce string, since time.Time) []journey.Visit {
	t.Helper()
	vs, err := env.Visits(t.Context(), host, since, func(v journey.Visit) bool { return strings.Contains(v.Detail, nonce) })
	if err != nil {
		t.Fatal(err)
	}
	return vs
}

func unseen(t *testing.T, nonce string, since time.Time) {
	t.Helper()
	for _, v := range visits(t, "other", nonce, since) {
		t.Errorf("a host that nobody registered was reached from %s by %s: %s", v.From(), v.Kind, v.Detail)
	}
}

func seenFromGateway(t *testing.T, nonce string, since time.Time) {
	t.Helper()
	ips, err := env.GatewayIPs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	vs := visits(t, "allowed", nonce, since)
	if len(vs) == 0 {
		t.Errorf("the registered host saw nothing of %s", nonce)
	}
	for _, v := range vs {
		if !ips[v.From()] {
			t.Errorf("the registered host was reached from %s, not from the gateway", v.From())
		}
	}
}

// removeNamespace deletes a namespace and waits until it is gone.
func removeNamespace(t *testing.T, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
	defer cancel()
	if err := env.Kube.Delete(ctx, kube.Namespace(name)); err != nil {
		t.Error(err)
	}
	if err := env.Kube.AwaitGone(ctx, corev1.SchemeGroupVersion.WithKind("Namespace"), "", name, 2*time.Minute); err != nil {
		t.Error(err)
	}
}
