// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package patch_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/charts"
	"github.com/isthmus-mesh/isthmus/internal/operator/patch"
	"github.com/isthmus-mesh/isthmus/internal/render"
)

// rendered are the objects of isthmusd and of one gateway, both with autoscalers.
func rendered(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	for _, name := range []string{charts.ControlPlane, charts.Gateway} {
		objects, err := render.Chart(charts.FS, name, render.Release{Name: "default", Namespace: "x"}, map[string]any{
			"topology": "default", "gateway": "edge", "component": v1alpha1.ComponentIngressGateway, "account": "u",
			"workload": map[string]any{"replicas": map[string]any{"min": 2, "max": 5, "targetCPU": 80}},
		})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, objects...)
	}
	return out
}

func parse(t *testing.T, kind, part, body string) v1alpha1.Patch {
	t.Helper()
	p := v1alpha1.Patch{Name: "p", Target: v1alpha1.PatchTarget{Kind: kind, Part: part}}
	var raw struct {
		Metadata *v1alpha1.PatchMetadata `json:"metadata"`
		Spec     map[string]any          `json:"spec"`
	}
	if err := yaml.UnmarshalStrict([]byte(body), &raw); err != nil {
		t.Fatal(err)
	}
	p.Merge.Metadata = raw.Metadata
	if raw.Spec != nil {
		text, err := yaml.Marshal(raw.Spec)
		if err != nil {
			t.Fatal(err)
		}
		if text, err = yaml.YAMLToJSON(text); err != nil {
			t.Fatal(err)
		}
		p.Merge.Spec = &runtime.RawExtension{Raw: text}
	}
	return p
}

// at is a field of the only object of a kind and part; lists are indexed by name.
func at(t *testing.T, objects []*unstructured.Unstructured, kind, part, path string) any {
	t.Helper()
	for _, o := range objects {
		if o.GetKind() != kind || (o.GetLabels()[v1alpha1.LabelGateway] == "edge") != (part == "edge") {
			continue
		}
		var v any = o.Object
		for _, step := range strings.Split(path, "/") {
			switch x := v.(type) {
			case map[string]any:
				v = x[step]
			case []any:
				v = nil
				for _, item := range x {
					if m, _ := item.(map[string]any); m["name"] == step {
						v = m
					}
				}
			}
		}
		return v
	}
	t.Fatalf("no %s of %s", kind, part)
	return nil
}

func TestWhatIsPatched(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		kind, part, body string
		path             string
		want             any
	}{
		"an argument": {"Deployment", "isthmusd", `{spec: {template: {spec: {containers: [{name: isthmusd, args: [--x]}]}}}}`,
			"spec/template/spec/containers/isthmusd/args", []any{"--x"}},
		"a variable": {"Deployment", "edge", `{spec: {template: {spec: {containers: [{name: istio-proxy, env: [{name: GODEBUG, value: x}]}]}}}}`,
			"spec/template/spec/containers/istio-proxy/env/GODEBUG/value", "x"},
		"a variable beside those that are there": {"Deployment", "edge", `{spec: {template: {spec: {containers: [{name: istio-proxy, env: [{name: GODEBUG, value: x}]}]}}}}`,
			"spec/template/spec/containers/istio-proxy/env/CA_ADDR/name", "CA_ADDR"},
		"names of hosts": {"Deployment", "edge", `{spec: {template: {spec: {hostAliases: [{ip: 192.0.2.1, hostnames: [a]}]}}}}`,
			"spec/template/spec/hostAliases", []any{map[string]any{"ip": "192.0.2.1", "hostnames": []any{"a"}}}},
		"a volume and its mount": {"Deployment", "edge", `{spec: {template: {spec: {volumes: [{name: ca, secret: {secretName: ca}}], containers: [{name: istio-proxy, volumeMounts: [{name: ca, mountPath: /ca}]}]}}}}`,
			"spec/template/spec/volumes/ca/secret/secretName", "ca"},
		"a label":                        {"Service", "edge", `{metadata: {labels: {team: edge}}}`, "metadata/labels/team", "edge"},
		"an annotation of what had none": {"Service", "isthmusd", `{metadata: {annotations: {team: edge}}}`, "metadata/annotations/team", "edge"},
		"who may call a load balancer":   {"Service", "edge", `{spec: {loadBalancerSourceRanges: [192.0.2.0/24]}}`, "spec/loadBalancerSourceRanges", []any{"192.0.2.0/24"}},
		"how fast an autoscaler is":      {"HorizontalPodAutoscaler", "edge", `{spec: {behavior: {scaleDown: {stabilizationWindowSeconds: 60}}}}`, "spec/behavior/scaleDown/stabilizationWindowSeconds", int64(60)},
		"how many may be disrupted":      {"PodDisruptionBudget", "isthmusd", `{spec: {maxUnavailable: null, minAvailable: 2}}`, "spec/minAvailable", int64(2)},
		"the time that is left to stop":  {"Deployment", "isthmusd", `{spec: {template: {spec: {terminationGracePeriodSeconds: 5}}}}`, "spec/template/spec/terminationGracePeriodSeconds", int64(5)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			objects := rendered(t)
			if err := patch.Apply(objects, []v1alpha1.Patch{parse(t, tt.kind, tt.part, tt.body)}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, at(t, objects, tt.kind, tt.part, tt.path)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhatCannotBePatched(t *testing.T) {
	t.Parallel()
	pod := func(body string) string { return `{spec: {template: {spec: ` + body + `}}}` }
	container := func(body string) string { return pod(`{containers: [{name: istio-proxy, ` + body + `}]}`) }
	tests := map[string]struct{ kind, body, want string }{
		"the node's network":              {"Deployment", pod(`{hostNetwork: true}`), "spec.template.spec.hostNetwork cannot be patched"},
		"the node's processes":            {"Deployment", pod(`{hostPID: true}`), "spec.template.spec.hostPID cannot"},
		"the account":                     {"Deployment", pod(`{serviceAccountName: default}`), "spec.template.spec.serviceAccountName cannot"},
		"the pod's user":                  {"Deployment", pod(`{securityContext: {runAsUser: 0}}`), "spec.template.spec.securityContext.runAsUser cannot"},
		"one process namespace":           {"Deployment", pod(`{shareProcessNamespace: true}`), "spec.template.spec.shareProcessNamespace cannot"},
		"the container's capabilities":    {"Deployment", container(`securityContext: {capabilities: {add: [NET_ADMIN]}}`), "securityContext.capabilities.add cannot"},
		"a privileged container":          {"Deployment", container(`securityContext: {privileged: true}`), "securityContext.privileged cannot"},
		"a container beside the proxy":    {"Deployment", pod(`{containers: [{name: more, image: x}]}`), "spec.template.spec.containers.more.name cannot"},
		"a container before the proxy":    {"Deployment", pod(`{initContainers: [{name: more, image: x}]}`), "spec.template.spec.initContainers.more.image cannot"},
		"the proxy itself":                {"Deployment", pod(`{containers: [{name: istio-proxy, $patch: delete}]}`), "spec.template.spec.containers"},
		"a variable of the operator":      {"Deployment", container(`env: [{name: CA_ADDR, value: elsewhere}]`), "env.CA_ADDR.value cannot be patched: the operator sets that variable"},
		"a volume of the operator":        {"Deployment", pod(`{volumes: [{name: istio-envoy, emptyDir: {medium: ""}}]}`), "volumes.istio-envoy.emptyDir"},
		"a volume turned into another":    {"Deployment", pod(`{volumes: [{name: istio-token, emptyDir: {}}]}`), "volumes.istio-token"},
		"the node's files":                {"Deployment", pod(`{volumes: [{name: host, hostPath: {path: /}}]}`), "volumes.host.hostPath"},
		"a mount of the operator":         {"Deployment", container(`volumeMounts: [{mountPath: /etc/istio/proxy, name: istio-token}]`), "volumeMounts./etc/istio/proxy.name cannot"},
		"what the Deployment selects":     {"Deployment", `{spec: {selector: {matchLabels: {app: x}}}}`, "spec.selector.matchLabels.app cannot"},
		"how many run":                    {"Deployment", `{spec: {replicas: 3}}`, "spec.replicas cannot be patched: set workload.replicas"},
		"a label that policies select by": {"Deployment", `{spec: {template: {metadata: {labels: {isthmus.dev/component: x}}}}}`, "labels.isthmus.dev/component cannot"},
		"a label of the operator":         {"Deployment", `{spec: {template: {metadata: {labels: {isthmus.dev/other: x}}}}}`, "labels.isthmus.dev/other cannot"},
		"a label that keeps the proxy":    {"Deployment", `{spec: {template: {metadata: {labels: {sidecar.istio.io/inject: "true"}}}}}`, "labels.sidecar.istio.io/inject cannot"},
		"the account's mark":              {"Deployment", `{spec: {template: {metadata: {annotations: {isthmus.dev/service-account-uid: x}}}}}`, "annotations.isthmus.dev/service-account-uid cannot"},
		"a label that is rendered":        {"Service", `{metadata: {labels: {app: x}}}`, "metadata.labels.app cannot"},
		"what a Service selects":          {"Service", `{spec: {selector: {app: x}}}`, "spec.selector.app cannot"},
		"a Service's ports":               {"Service", `{spec: {ports: [{port: 81}]}}`, "spec.ports cannot be patched: set the gateway's service"},
		"a Service's type":                {"Service", `{spec: {type: ExternalName}}`, "spec.type cannot be patched: set the gateway's service"},
		"an address of somebody else":     {"Service", `{spec: {externalIPs: [192.0.2.1]}}`, "spec.externalIPs cannot"},
		"an autoscaler's ends":            {"HorizontalPodAutoscaler", `{spec: {maxReplicas: 9}}`, "spec.maxReplicas cannot be patched: set workload.replicas"},
		"what an autoscaler scales":       {"HorizontalPodAutoscaler", `{spec: {scaleTargetRef: {name: x}}}`, "spec.scaleTargetRef.name cannot"},
		"whose disruption is bounded":     {"PodDisruptionBudget", `{spec: {selector: {matchLabels: {app: x}}}}`, "spec.selector.matchLabels.app cannot"},
		"a field that is none":            {"Deployment", pod(`{hostAlises: []}`), `unknown field "spec.template.spec.hostAlises"`},
		"a word for a number":             {"Deployment", pod(`{terminationGracePeriodSeconds: long}`), "does not fit a Deployment"},
		"a list for a map":                {"Deployment", `{spec: {template: []}}`, "does not fit a Deployment"},
		"no template":                     {"Deployment", `{spec: {template: null}}`, "spec.template"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			objects := rendered(t)
			err := patch.Apply(objects, []v1alpha1.Patch{parse(t, tt.kind, "edge", tt.body)})
			if err == nil || !strings.HasPrefix(err.Error(), "patches p: ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("want %q, got %v", tt.want, err)
			}
			if diff := cmp.Diff(rendered(t), objects); diff != "" {
				t.Errorf("refused, but applied: %s", diff)
			}
		})
	}
}

func TestPatchOfNothing(t *testing.T) {
	t.Parallel()
	err := patch.Apply(rendered(t)[:1], []v1alpha1.Patch{parse(t, "HorizontalPodAutoscaler", "isthmusd", `{spec: {behavior: {}}}`)})
	if err == nil || !strings.Contains(err.Error(), "there is no HorizontalPodAutoscaler of isthmusd") {
		t.Error(err)
	}
}
