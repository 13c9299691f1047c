// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
)

var update = flag.Bool("update", false, "write the golden files anew")

const configMap = `
apiVersion: v1
kind: ConfigMap
metadata: {name: isthmus-default, namespace: isthmus-system}
data:
  topology: |
    {name: default, namespace: isthmus-system, revision: default-0-1-0, topology: IngressOnly, outbound: AllowAny,
     mtls: Permissive, trustDomain: cluster.local, clusterDomain: cluster.local, members: [{matchLabels: {team: nobody}}]}
  mesh: |
    defaultConfig: {drainDuration: 1m}
`

const meshTopology = `
apiVersion: isthmus.dev/v1alpha1
kind: MeshTopology
metadata: {name: %[1]s, generation: 2}
spec: {topology: EgressGateway}
status:
  observedGeneration: %[2]d
  topology: SidecarEgress
  version: 0.1.0
  revision: %[1]s-0-1-0
  transition: {from: SidecarEgress, to: EgressGateway, phase: Routing, message: 3 proxies lag behind}
  members: {namespaces: 2, pods: 9, injected: 8, missing: 1, examples: [shop/cart-0]}
  gateways: [{name: ingress, addresses: [192.0.2.1], ready: 1, replicas: 2}]
  conditions:
  - {type: Ready, status: "%[3]s", reason: Transition, message: moving on}
  - {type: EgressEnforced, status: Unknown, reason: NotMeasured, message: no round yet}
`

// call runs isthmusctl against a cluster that holds the objects.
func call(t *testing.T, input string, cluster []string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	root := NewCommand(Tool{
		Streams: Streams{In: strings.NewReader(input), Out: &out, Err: &errs},
		Connect: func(string, string) (Cluster, error) {
			if cluster == nil {
				return nil, errors.New("no cluster here")
			}
			return fakeCluster(t, cluster), nil
		},
	})
	root.SetArgs(args)
	err = root.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

func fakeCluster(t *testing.T, manifests []string) Cluster {
	t.Helper()
	kinds := map[schema.GroupVersionResource]string{
		{Version: "v1", Resource: "configmaps"}:                                 "ConfigMapList",
		{Group: "isthmus.dev", Version: "v1alpha1", Resource: "meshtopologies"}: "MeshTopologyList",
	}
	var list []runtime.Object
	for _, m := range manifests {
		us, err := objects([]byte(m))
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range us {
			list = append(list, u)
		}
	}
	return NewCluster(fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), kinds, list...))
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func TestInjectChangesOnlyPodsAndTemplates(t *testing.T) {
	t.Parallel()
	out, errs, err := call(t, "", []string{configMap}, "inject", "-f", "testdata/app.yaml")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/app-injected.yaml", out)
	if want := "Pod web/raw is left as it is: HostNetwork\n"; errs != want {
		t.Errorf("said %q, want %q", errs, want)
	}
	again, _, err := call(t, out, []string{configMap}, "inject", "-f", "-")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(out, again); diff != "" {
		t.Errorf("injecting again changed something:\n%s", diff)
	}
}

func TestInjectWithConfigurationFromAFileNeedsNoCluster(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/config.yaml"
	if err := os.WriteFile(file, []byte(configMap), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _, err := call(t, "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: app}]}}", nil,
		"inject", "-f", "-", "--config", file)
	if err != nil || !strings.Contains(out, "name: istio-proxy") {
		t.Errorf("error %v, output:\n%s", err, out)
	}
}

func TestWhatCannotBeDoneIsSaid(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		input   string
		cluster []string
		args    []string
		want    string
	}{
		"inject without files":     {args: []string{"inject"}, want: "--filename"},
		"inject without a cluster": {args: []string{"inject", "-f", "-"}, want: "no cluster here"},
		"inject without the mesh":  {args: []string{"inject", "-f", "-"}, cluster: []string{}, want: "is the mesh installed"},
		"inject of no YAML":        {args: []string{"inject", "-f", "-"}, cluster: []string{configMap}, input: "a: [", want: "document 1"},
		"inject of a bad annotation": {
			args: []string{"inject", "-f", "-"}, cluster: []string{configMap},
			input: `{apiVersion: v1, kind: Pod, metadata: {name: a, annotations: {sidecar.istio.io/proxyCPU: x}}, spec: {containers: [{name: app}]}}`,
			want:  `Pod a: metadata.annotations[sidecar.istio.io/proxyCPU]: "x"`,
		},
		"validate without files":     {args: []string{"validate"}, want: "--filename"},
		"validate of a missing file": {args: []string{"validate", "-f", "testdata/nowhere.yaml"}, want: "read testdata/nowhere.yaml"},
		"status of a stranger":       {args: []string{"status", "other"}, cluster: []string{}, want: "there is no MeshTopology other"},
		"version in XML":             {args: []string{"version", "-o", "xml"}, want: "--output"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := call(t, tc.input, tc.cluster, tc.args...)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestValidateNamesProblemsAndFails(t *testing.T) {
	t.Parallel()
	const input = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: shop}
spec: {servers: [{port: {number: 80, name: http, protocol: HTTP}}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: other}
spec: {}
---
apiVersion: v1
kind: List
items:
- {apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p}, spec: {mtls: {mode: STRICT}}}
`
	out, _, err := call(t, input, nil, "validate", "-f", "-")
	if err == nil || err.Error() != "1 of 2 objects would be refused" {
		t.Errorf("got %v", err)
	}
	for _, want := range []string{"Gateway shop/front: error: spec.servers[0].hosts: ", "Gateway shop/front: warning: spec.selector: "} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing from:\n%s", want, out)
		}
	}
	out, _, err = call(t, strings.SplitN(input, "---", 2)[1], nil, "validate", "-f", "-")
	if err != nil || out != "1 objects checked, none would be refused\n" {
		t.Errorf("got %v, %q", err, out)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	all := []string{fmt.Sprintf(meshTopology, "default", 1, "False"), fmt.Sprintf(meshTopology, "apps", 2, "True")}
	out, _, err := call(t, "", all, "status")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/status.txt", out)
	out, _, err = call(t, "", all, "status", "default")
	if !errors.Is(err, errNotReady) {
		t.Errorf("got %v, want %v", err, errNotReady)
	}
	golden(t, "testdata/status-default.txt", out)
	if _, _, err = call(t, "", all, "status", "apps"); err != nil {
		t.Error(err)
	}
	if out, _, err = call(t, "", []string{}, "status"); err != nil || !strings.HasPrefix(out, "There is no MeshTopology") {
		t.Errorf("got %v, %q", err, out)
	}
}

func TestConditionThatIsMissingIsADash(t *testing.T) {
	t.Parallel()
	top, err := topologyFrom((&unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": "a"}}}).Object)
	if err != nil || top.Name != "a" || top.condition("Ready") != "-" {
		t.Errorf("got %+v, %v", top, err)
	}
	top.Status.Conditions = []metav1.Condition{{Type: "Ready", Status: "True"}}
	if top.condition("Ready") != "True" {
		t.Error("condition is not found")
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	out, _, err := call(t, "", nil, "version", "--output", "json")
	if err != nil || !strings.Contains(out, `"version":"0.1.0"`) {
		t.Errorf("got %v, %q", err, out)
	}
	out, _, err = call(t, "", nil, "version")
	if err != nil || !strings.HasPrefix(out, "0.1.0") {
		t.Errorf("got %v, %q", err, out)
	}
}

func FuzzObjects(f *testing.F) {
	f.Add([]byte(configMap))
	f.Add([]byte("a: 1\n---\n[]\n---\n{kind: List, items: [1]}"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		list, err := objects(stream)
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := writeObjects(&out, list); err != nil {
			t.Errorf("cannot write what was read: %v", err)
		}
	})
}
