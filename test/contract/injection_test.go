// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package contract holds tests between parts that do not import each other: what
// one renders, the other must read.
package contract

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/isthmus-mesh/isthmus/internal/agent"
	"github.com/isthmus-mesh/isthmus/internal/agent/bootstrap"
	"github.com/isthmus-mesh/isthmus/internal/inject"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// TestAgentUnderstandsWhatInjectionRenders plays the kubelet: it resolves the
// environment and the mounted files of injected pods and hands them to the agent.
func TestAgentUnderstandsWhatInjectionRenders(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		annotations map[string]string
		container   corev1.Container
		role        bootstrap.Role
	}{
		"sidecar": {
			annotations: map[string]string{
				"proxy.istio.io/config":      "concurrency: 1\nterminationDrainDuration: 1m\n",
				"sidecar.istio.io/logLevel":  "debug",
				"prometheus.io/scrape":       "true",
				"prometheus.io/port":         "9090",
				"sidecar.istio.io/proxyCPU":  "50m",
				"example.com/with-a-newline": "one\ntwo",
			},
			container: corev1.Container{Name: "app", Image: "app", LivenessProbe: &corev1.Probe{
				ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/live", Port: intstr.FromInt32(8080)}},
			}},
			role: bootstrap.Sidecar,
		},
		"gateway": {
			annotations: map[string]string{"inject.istio.io/templates": "gateway"},
			container:   corev1.Container{Name: inject.ProxyContainer, Image: "auto"},
			role:        bootstrap.Router,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := injected(t, tc.annotations, tc.container)
			env := environment(t, pod, proxyOf(t, pod))
			conf, err := agent.Configure(env, agent.Settings{
				Role: tc.role, Root: mounted(t, pod), EnvoyPath: "/usr/local/bin/envoy",
				StatusPort: 15020, HealthPort: 15021, MetricsPort: 15090, ClusterDomain: "cluster.local",
			})
			if err != nil {
				t.Fatal(err)
			}
			if want := "isthmusd-default.isthmus-system.svc:15012"; conf.Bootstrap.Discovery != want {
				t.Errorf("discovery at %q, want %q", conf.Bootstrap.Discovery, want)
			}
			if want := "spiffe://cluster.local/ns/shop/sa/cart"; conf.Authority.Identity != want {
				t.Errorf("identity %q, want %q", conf.Authority.Identity, want)
			}
			if n := conf.Bootstrap.Node; n.Name != "cart-0" || n.Namespace != "shop" || n.Labels["app"] != "cart" {
				t.Errorf("node is %+v", n)
			}
		})
	}
}

func injected(t *testing.T, annotations map[string]string, c corev1.Container) *corev1.Pod {
	t.Helper()
	in, err := inject.New(inject.FromTopology(topology.Config{Name: "default", Namespace: "isthmus-system"}, nil))
	if err != nil {
		t.Fatal(err)
	}
	res, err := in.Inject(inject.Request{
		Pod: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Name: "cart-0", Namespace: "shop", Labels: map[string]string{"app": "cart"}, Annotations: annotations,
			},
			Spec: corev1.PodSpec{ServiceAccountName: "cart", NodeName: "node-1", Containers: []corev1.Container{c}},
		},
		Namespace: inject.Namespace{Name: "shop", Labels: map[string]string{inject.LabelInjection: "enabled"}},
	})
	if err != nil || res.Pod == nil {
		t.Fatalf("decision %+v, error %v", res.Decision, err)
	}
	return res.Pod
}

func proxyOf(t *testing.T, pod *corev1.Pod) corev1.Container {
	t.Helper()
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if c.Name == inject.ProxyContainer {
			return c
		}
	}
	t.Fatal("the pod has no proxy")
	return corev1.Container{}
}

// environment resolves the downward API as the kubelet does.
func environment(t *testing.T, pod *corev1.Pod, c corev1.Container) agent.Environment {
	t.Helper()
	fields := map[string]string{
		"metadata.name": pod.Name, "metadata.namespace": pod.Namespace, "spec.nodeName": pod.Spec.NodeName,
		"spec.serviceAccountName": pod.Spec.ServiceAccountName, "status.hostIP": "192.0.2.1",
		"status.podIP": "10.1.2.3", "status.podIPs": "10.1.2.3,fd00::3",
	}
	env := agent.Environment{}
	for _, e := range c.Env {
		switch {
		case e.ValueFrom == nil:
			env[e.Name] = e.Value
		case e.ValueFrom.FieldRef != nil:
			v, ok := fields[e.ValueFrom.FieldRef.FieldPath]
			if !ok {
				t.Fatalf("%s: the test knows no field %s", e.Name, e.ValueFrom.FieldRef.FieldPath)
			}
			env[e.Name] = v
		case e.ValueFrom.ResourceFieldRef != nil:
			env[e.Name] = "2"
		}
	}
	return env
}

// mounted writes the downward API volume where the container mounts it.
func mounted(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	root := t.TempDir()
	for _, m := range proxyOf(t, pod).VolumeMounts {
		if err := os.MkdirAll(filepath.Join(root, m.MountPath), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for file, values := range map[string]map[string]string{"labels": pod.Labels, "annotations": pod.Annotations} {
		var text string
		for _, k := range slices.Sorted(maps.Keys(values)) {
			text += fmt.Sprintf("%s=%q\n", k, values[k])
		}
		if err := os.WriteFile(filepath.Join(root, "etc/istio/pod", file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}
