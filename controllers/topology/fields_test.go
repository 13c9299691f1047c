// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
)

// TestEachFieldOfTheSpecCounts takes each field of a spec that has all of them away,
// one at a time: in one of the topologies something else must be planned or said.
func TestEachFieldOfTheSpecCounts(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/every-field.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var full v1alpha1.MeshTopologySpec
	if err := yaml.UnmarshalStrict(text, &full); err != nil {
		t.Fatal(err)
	}
	elsewhere := map[string]string{
		".trust.ca.type":                      "there is one type of CA so far",
		".transition.uninjected":              "counts where pods without a proxy are",
		".uninstall.ca":                       "counts when the mesh goes",
		".uninstall.namespace":                "counts when the mesh goes",
		".egress.networkPolicy.dns.namespace": "where facts are gathered",
		".egress.networkPolicy.dns.service":   "where facts are gathered",
		".egress.networkPolicy.dns.addresses": "where facts are gathered",
		".egress.guard.exemptions[].reason":   "for those who read the spec",
		".patches[].name":                     "names the patch where it is refused",
	}
	kinds := []v1alpha1.TopologyKind{v1alpha1.EgressGateway, v1alpha1.IngressOnly, v1alpha1.SidecarEgress}
	before := map[v1alpha1.TopologyKind]string{}
	for _, k := range kinds {
		before[k] = consequences(t, k, &full)
	}
	all := map[string]reflect.Value{}
	fields(all, "", reflect.ValueOf(&full).Elem())
	for path, field := range all {
		if field.IsZero() && field.Kind() != reflect.Bool {
			t.Errorf("%s: testdata/every-field.yaml has no value for it", path)
		}
		value := reflect.New(field.Type()).Elem()
		value.Set(field)
		switch {
		case field.Kind() == reflect.Bool:
			field.SetBool(!field.Bool())
		case path == ".egress.networkPolicy.mode": // without a value it is on
			field.SetString(string(v1alpha1.PolicyOff))
		default:
			field.SetZero()
		}
		counts := slices.ContainsFunc(kinds, func(k v1alpha1.TopologyKind) bool { return consequences(t, k, &full) != before[k] })
		field.Set(value)
		if _, listed := elsewhere[path]; counts == listed {
			t.Errorf("%s: counts %t, listed as one that does not %t", path, counts, listed)
		}
	}
	for _, k := range kinds {
		if diff := cmp.Diff(before[k], consequences(t, k, &full)); diff != "" {
			t.Error("the spec is another afterwards:\n", diff)
		}
	}
}

// fields collects the fields of our own types by their path. What Kubernetes defines
// stands for itself, and of several elements of a list one that has the field.
func fields(all map[string]reflect.Value, path string, v reflect.Value) {
	switch {
	case v.Kind() == reflect.Pointer && ours(v.Type().Elem()) && !v.IsNil():
		fields(all, path, v.Elem())
	case v.Kind() == reflect.Slice && ours(v.Type().Elem()) && v.Len() > 0:
		for i := range v.Len() {
			fields(all, path+"[]", v.Index(i))
		}
	case ours(v.Type()):
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			fields(all, path+"."+name, v.Field(i))
		}
	default:
		if known, ok := all[path]; !ok || known.IsZero() {
			all[path] = v
		}
	}
}

func ours(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t.PkgPath() == reflect.TypeFor[v1alpha1.MeshTopology]().PkgPath()
}

// consequences are all that a spec leads to in a topology.
func consequences(t *testing.T, kind v1alpha1.TopologyKind, spec *v1alpha1.MeshTopologySpec) string {
	t.Helper()
	f := testFacts(kind)
	f.Mesh.Status.Version = "0.0.9"
	f.Parts.Accounts = map[string]types.UID{"public-default": "u2"}
	f.Cluster.DNS.Addresses, f.Cluster.APIServer.Addresses = []string{"10.96.0.10"}, []string{"10.96.0.1"}
	f.Mesh.Spec = *spec.DeepCopy()
	if spec.Topology != "" {
		f.Mesh.Spec.Topology = kind
	}
	said := struct {
		Plan    *Plan
		Refusal string
		Status  v1alpha1.MeshTopologyStatus
	}{}
	var err error
	if said.Plan, err = Decide(f); err != nil {
		said.Refusal = err.Error()
	} else {
		said.Status = statusOf(f)
	}
	text, err := json.MarshalIndent(said, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
