// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package charts_test

import (
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-mesh/isthmus/charts"
	"github.com/isthmus-mesh/isthmus/internal/render"
)

// impure are functions and values by which a chart's output would depend on more
// than its values.
var impure = regexp.MustCompile(`(?:^|[\s(|{])(lookup|now|date|ago|uuidv4|rand(Alpha|AlphaNum|Ascii|Numeric|Bytes|Int)|gen(CA|PrivateKey|SelfSignedCert|SignedCert|CAWithKey)|shuffle|env|expandenv|getHostByName|htpasswd|bcrypt|encryptAES)\b|\.Release\.(IsUpgrade|IsInstall|Revision)|helm\.sh/hook|\.Capabilities`)

func TestChartsArePure(t *testing.T) {
	action := regexp.MustCompile(`(?s)\{\{.*?\}\}`)
	err := fs.WalkDir(charts.FS, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(path, "templates/") && !strings.HasPrefix(path, "library/") {
			return err
		}
		text, err := fs.ReadFile(charts.FS, path)
		if err != nil {
			return err
		}
		for _, a := range action.FindAllString(string(text), -1) {
			if m := impure.FindString(a); m != "" && !strings.HasPrefix(a, "{{- /*") {
				t.Errorf("%s uses %s in %s", path, m, a)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func operator(t *testing.T, values map[string]any) []*unstructured.Unstructured {
	t.Helper()
	out, err := render.Chart(charts.FS, charts.Operator, render.Release{Name: "isthmus", Namespace: "isthmus-operator"}, values)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRenderingIsTheSameEachTime(t *testing.T) {
	if diff := cmp.Diff(operator(t, nil), operator(t, nil)); diff != "" {
		t.Error(diff)
	}
}

func TestOperatorChartRefusesWhatItDoesNotKnow(t *testing.T) {
	tests := map[string]map[string]any{
		"a key that is none":      {"image": "x"},
		"a mode that is none":     {"crds": map[string]any{"istio": "Sometimes"}},
		"replicas that are words": {"operator": map[string]any{"replicas": "two"}},
		"a registry with a slash": {"images": map[string]any{"registry": "registry.example/"}},
	}
	for name, values := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := render.Chart(charts.FS, charts.Operator, render.Release{Name: "isthmus", Namespace: "x"}, values); err == nil {
				t.Error("rendered")
			}
		})
	}
}

func TestCRDsOutliveTheRelease(t *testing.T) {
	n := 0
	for _, o := range operator(t, nil) {
		if o.GetKind() != "CustomResourceDefinition" {
			continue
		}
		n++
		if o.GetAnnotations()["helm.sh/resource-policy"] != "keep" {
			t.Errorf("%s would go with the release", o.GetName())
		}
	}
	if n != 2 {
		t.Errorf("%d CRDs", n)
	}
}

// TestATopologyIsTheUsersOwn: an installation makes no mesh.
func TestATopologyIsTheUsersOwn(t *testing.T) {
	for _, o := range operator(t, map[string]any{"createNamespace": true}) {
		if o.GroupVersionKind().Group == "isthmus.dev" {
			t.Errorf("the chart makes %s %s", o.GetKind(), o.GetName())
		}
	}
}

func TestHelmFindsNoFault(t *testing.T) {
	found := lint.All("isthmus", nil, "isthmus-operator", true)
	for _, m := range found.Messages {
		if m.Severity > support.InfoSev {
			t.Error(m)
		}
	}
	if len(found.Messages) == 0 {
		t.Error("nothing was looked at: an icon is recommended at least")
	}
}

func TestRolesAreEnumerated(t *testing.T) {
	for _, o := range operator(t, nil) {
		if o.GetKind() != "ClusterRole" && o.GetKind() != "Role" {
			continue
		}
		rules, _, _ := unstructured.NestedSlice(o.Object, "rules")
		for _, r := range rules {
			rule, _ := r.(map[string]any)
			for _, key := range []string{"apiGroups", "resources", "verbs"} {
				values, _, _ := unstructured.NestedStringSlice(rule, key)
				if slices.Contains(values, "*") {
					t.Errorf("%s %s grants %s *", o.GetKind(), o.GetName(), key)
				}
			}
			resources, _, _ := unstructured.NestedStringSlice(rule, "resources")
			verbs, _, _ := unstructured.NestedStringSlice(rule, "verbs")
			if o.GetName() == "isthmus-operator" && slices.Contains(resources, "secrets") {
				t.Errorf("the operator may %v Secrets of the whole cluster", verbs)
			}
			if slices.Contains(verbs, "bind") {
				if names, _, _ := unstructured.NestedStringSlice(rule, "resourceNames"); len(names) == 0 {
					t.Errorf("%s may bind any role", o.GetName())
				}
			}
		}
	}
}

// TestUsersGetWhatControlPlanesRead compares the rights that Kubernetes' own roles
// get: to write and to read each kind of Istio that control planes read, and of the
// mesh's own kinds to read only.
func TestUsersGetWhatControlPlanesRead(t *testing.T) {
	rights := map[string]map[string][]string{} // by role and resource: verbs
	for _, o := range operator(t, nil) {
		if o.GetKind() != "ClusterRole" {
			continue
		}
		byResource := map[string][]string{}
		rights[o.GetName()] = byResource
		rules, _, _ := unstructured.NestedSlice(o.Object, "rules")
		for _, r := range rules {
			rule, _ := r.(map[string]any)
			groups, _, _ := unstructured.NestedStringSlice(rule, "apiGroups")
			resources, _, _ := unstructured.NestedStringSlice(rule, "resources")
			for _, resource := range resources {
				byResource[groups[0]+"/"+resource], _, _ = unstructured.NestedStringSlice(rule, "verbs")
			}
		}
	}
	edit, view := map[string][]string{}, map[string][]string{}
	for resource := range rights["isthmusd"] {
		if group, _, _ := strings.Cut(resource, "/"); strings.HasSuffix(group, ".istio.io") {
			edit[resource] = []string{"create", "update", "patch", "delete", "deletecollection"}
			view[resource] = []string{"get", "list", "watch"}
		}
	}
	if len(edit) == 0 {
		t.Error("control planes read nothing of Istio's")
	}
	view["isthmus.dev/meshmembers"] = []string{"get", "list", "watch"}
	view["isthmus.dev/meshtopologies"] = []string{"get", "list", "watch"}
	want := map[string]map[string][]string{"isthmus-edit": edit, "isthmus-view": view}
	got := map[string]map[string][]string{"isthmus-edit": rights["isthmus-edit"], "isthmus-view": rights["isthmus-view"]}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestPodsAreRestricted(t *testing.T) {
	sets := map[string]func() ([]*unstructured.Unstructured, error){
		charts.Operator: func() ([]*unstructured.Unstructured, error) {
			return render.Chart(charts.FS, charts.Operator, render.Release{Name: "isthmus", Namespace: "x"}, nil)
		},
		charts.ControlPlane: func() ([]*unstructured.Unstructured, error) {
			return render.Chart(charts.FS, charts.ControlPlane, render.Release{Name: "a", Namespace: "x"}, nil)
		},
		charts.Gateway: func() ([]*unstructured.Unstructured, error) {
			return render.Chart(charts.FS, charts.Gateway, render.Release{Name: "a", Namespace: "x"}, nil)
		},
	}
	for name, objects := range sets {
		t.Run(name, func(t *testing.T) {
			list, err := objects()
			if err != nil {
				t.Fatal(err)
			}
			deployments := 0
			for _, o := range list {
				if o.GetKind() == "Deployment" {
					deployments++
					restricted(t, o)
				}
			}
			if deployments != 1 {
				t.Errorf("%d Deployments", deployments)
			}
		})
	}
}

func restricted(t *testing.T, d *unstructured.Unstructured) {
	t.Helper()
	at := func(want any, o map[string]any, path ...string) {
		t.Helper()
		if got, _, _ := unstructured.NestedFieldNoCopy(o, path...); !cmp.Equal(got, want) {
			t.Errorf("%s: %s is %v, not %v", d.GetName(), strings.Join(path, "."), got, want)
		}
	}
	spec, _, _ := unstructured.NestedMap(d.Object, "spec", "template", "spec")
	at(true, spec, "securityContext", "runAsNonRoot")
	at("RuntimeDefault", spec, "securityContext", "seccompProfile", "type")
	containers, _, _ := unstructured.NestedSlice(spec, "containers")
	for _, c := range containers {
		m, _ := c.(map[string]any)
		at(false, m, "securityContext", "allowPrivilegeEscalation")
		at(true, m, "securityContext", "readOnlyRootFilesystem")
		at([]any{"ALL"}, m, "securityContext", "capabilities", "drop")
	}
}

func TestNamesThatYAMLWouldMistake(t *testing.T) {
	for _, name := range []string{"on", "true", "null", "y"} {
		list, err := render.Chart(charts.FS, charts.Gateway, render.Release{Name: name, Namespace: "x"},
			map[string]any{"topology": name, "gateway": name})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range list {
			if got := o.GetLabels()["isthmus.dev/gateway"]; got != name {
				t.Errorf("%s %s: label is %q, not %q", o.GetKind(), o.GetName(), got, name)
			}
		}
	}
}
