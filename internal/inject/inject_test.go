// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// checkIdempotent injects once more: nothing may change.
func checkIdempotent(t *testing.T, in *Injector, ns Namespace, injected *corev1.Pod) {
	t.Helper()
	again, err := in.Inject(Request{Pod: injected, Namespace: ns})
	if err != nil || again.Decision.Inject || again.Decision.Reason != AlreadyInjected {
		t.Errorf("injecting again: decision %+v, error %v; want it left alone", again.Decision, err)
	}
}

// checkPatch applies the patch, as the API server would, and expects the pod.
func checkPatch(t *testing.T, before, after *corev1.Pod) {
	t.Helper()
	patch, err := Patch(before, after)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(before)
	if err != nil {
		t.Fatal(err)
	}
	if patch == nil {
		patch = []byte("[]")
	}
	p, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		t.Fatal(err)
	}
	patched, err := p.Apply(raw)
	if err != nil {
		t.Fatalf("apply %s: %v", patch, err)
	}
	want, err := json.Marshal(after)
	if err != nil {
		t.Fatal(err)
	}
	if !jsonpatch.Equal(want, patched) {
		t.Errorf("patched pod (-want +got):\n%s", cmp.Diff(string(want), string(patched)))
	}
}

func TestPatchKeepsFieldsOfNewerVersions(t *testing.T) {
	t.Parallel()
	in, err := New(FromTopology(topology.Config{
		Name: "default", Namespace: "isthmus-system", Injection: topology.Injection{Image: "proxy"},
	}, nil))
	if err != nil {
		t.Fatal(err)
	}
	raw := []byte(`{"metadata":{"name":"a","tomorrow":1},"spec":{"containers":[{"name":"app","resources":{},"tomorrow":2}],"tomorrow":3},"status":{}}`)
	var pod corev1.Pod
	if err := json.Unmarshal(raw, &pod); err != nil {
		t.Fatal(err)
	}
	res, err := in.Inject(Request{Pod: &pod, Namespace: Namespace{Name: "shop", Labels: map[string]string{LabelInjection: "enabled"}}})
	if err != nil || res.Pod == nil {
		t.Fatalf("inject: %+v, %v", res.Decision, err)
	}
	patch, err := Patch(&pod, res.Pod)
	if err != nil {
		t.Fatal(err)
	}
	p, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.Apply(raw)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Metadata struct{ Tomorrow int }
		Spec     struct {
			Tomorrow   int
			Containers []struct{ Tomorrow int }
		}
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	if got.Metadata.Tomorrow != 1 || got.Spec.Tomorrow != 3 || got.Spec.Containers[0].Tomorrow != 2 {
		t.Errorf("unknown fields were lost: %s", out)
	}
}

func FuzzInject(f *testing.F) {
	files, err := filepath.Glob("testdata/cases/*/before.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		j, err := yaml.YAMLToJSON(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(j)
	}
	in, err := New(FromTopology(topology.Config{
		Name: "default", Namespace: "isthmus-system",
		Injection: topology.Injection{Image: "proxy", PullSecrets: []string{"pull"}},
		Bypass:    []topology.Bypass{{CIDR: "10.0.0.0/8", Ports: []int{80}}},
	}, nil))
	if err != nil {
		f.Fatal(err)
	}
	ns := Namespace{Name: "shop", Labels: map[string]string{LabelInjection: "enabled"}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var pod corev1.Pod
		if json.Unmarshal(raw, &pod) != nil {
			return
		}
		res, err := in.Inject(Request{Pod: &pod, Namespace: ns})
		if err != nil || res.Pod == nil {
			return
		}
		checkIdempotent(t, in, ns, res.Pod)
		checkPatch(t, &pod, res.Pod)
	})
}

func BenchmarkInjectAndPatch(b *testing.B) {
	raw, err := os.ReadFile("testdata/cases/deployment-with-all-probes/before.yaml")
	if err != nil {
		b.Fatal(err)
	}
	var pod corev1.Pod
	if err := yaml.Unmarshal(raw, &pod); err != nil {
		b.Fatal(err)
	}
	in, err := New(FromTopology(topology.Config{
		Name: "default", Namespace: "isthmus-system", Injection: topology.Injection{Image: "proxy"},
	}, nil))
	if err != nil {
		b.Fatal(err)
	}
	ns := Namespace{Name: "shop", Labels: map[string]string{LabelInjection: "enabled"}}
	b.ReportAllocs()
	for b.Loop() {
		res, err := in.Inject(Request{Pod: &pod, Namespace: ns})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Patch(&pod, res.Pod); err != nil {
			b.Fatal(err)
		}
	}
}

func TestWarningsOfWhatHasNoEffect(t *testing.T) {
	t.Parallel()
	in, err := New(FromTopology(topology.Config{Name: "default", Namespace: "isthmus-system"}, nil))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		key, value string
		want       string // "" for no warning
	}{
		"a key of somebody else":         {key: "example.com/anything", value: "x"},
		"a key that the agent reads":     {key: "sidecar.istio.io/statsInclusionPrefixes", value: "http"},
		"a native sidecar":               {key: "sidecar.istio.io/nativeSidecar", value: "true"},
		"a sidecar among the containers": {key: "sidecar.istio.io/nativeSidecar", value: "false", want: "metadata.annotations[sidecar.istio.io/nativeSidecar]: \"false\": has no effect: the proxy is always a native sidecar"},
		"a key that nobody reads":        {key: "sidecar.istio.io/agentLogLevel", value: "default:debug", want: "metadata.annotations[sidecar.istio.io/agentLogLevel]: \"default:debug\": has no effect: the agent has one log level"},
		"a slip of the pen":              {key: "sidecar.istio.io/proxyCpu", value: "1", want: "metadata.annotations[sidecar.istio.io/proxyCpu]: \"1\": has no effect: there is no such annotation"},
		"a field that somebody reads":    {key: "proxy.istio.io/config", value: "{concurrency: 1}"},
		"a field that nobody reads":      {key: "proxy.istio.io/config", value: "{statusPort: 15999}", want: "metadata.annotations[proxy.istio.io/config]: \"statusPort\": this field has no effect"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := &corev1.Pod{}
			pod.Annotations = map[string]string{tc.key: tc.value}
			pod.Spec.Containers = []corev1.Container{{Name: "app"}}
			res, err := in.Inject(Request{Pod: pod, Namespace: Namespace{Name: "shop", Labels: map[string]string{LabelInjection: "enabled"}}})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, w := range res.Warnings {
				got = append(got, w.String())
			}
			if strings.Join(got, "\n") != tc.want {
				t.Errorf("warnings %q, want %q", got, tc.want)
			}
		})
	}
}

// TestWhoSaysHowSidecarsDiscover: the pod's annotation counts before its
// ProxyConfig, that before the mesh, and nobody's word is the agent's.
func TestWhoSaysHowSidecarsDiscover(t *testing.T) {
	t.Parallel()
	const config = "proxy.istio.io/config"
	for name, tc := range map[string]struct {
		mesh        string
		annotations map[string]string
		want        string
	}{
		"nobody":                      {},
		"the mesh":                    {mesh: "OnDemand", want: "OnDemand"},
		"a pod":                       {annotations: map[string]string{"isthmus.dev/discovery": "OnDemand"}, want: "OnDemand"},
		"a pod against the mesh":      {mesh: "OnDemand", annotations: map[string]string{"isthmus.dev/discovery": "Full"}, want: "Full"},
		"a config against the mesh":   {mesh: "OnDemand", annotations: map[string]string{config: "proxyMetadata: {ISTIO_META_ISTHMUS_DISCOVERY: Tables}"}, want: "Tables"},
		"a pod against its config":    {annotations: map[string]string{"isthmus.dev/discovery": "Full", config: "proxyMetadata: {ISTIO_META_ISTHMUS_DISCOVERY: Tables}"}, want: "Full"},
		"a gateway, which has no say": {mesh: "OnDemand", annotations: map[string]string{"inject.istio.io/templates": "gateway"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in, err := New(FromTopology(topology.Config{
				Name: "default", Namespace: "isthmus-system", Injection: topology.Injection{Discovery: tc.mesh},
			}, nil))
			if err != nil {
				t.Fatal(err)
			}
			pod := &corev1.Pod{}
			pod.Annotations = tc.annotations
			pod.Spec.Containers = []corev1.Container{{Name: ProxyContainer, Image: "auto"}}
			if tc.annotations["inject.istio.io/templates"] == "" {
				pod.Spec.Containers[0] = corev1.Container{Name: "app"}
			}
			res, err := in.Inject(Request{Pod: pod, Namespace: Namespace{Name: "shop", Labels: map[string]string{LabelInjection: "enabled"}}})
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, c := range append(res.Pod.Spec.InitContainers, res.Pod.Spec.Containers...) {
				for _, e := range c.Env {
					if e.Name == discoveryVariable {
						got += e.Value
					}
				}
			}
			if got != tc.want {
				t.Errorf("the proxy says %q, want %q", got, tc.want)
			}
		})
	}
}
