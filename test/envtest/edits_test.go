// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envtest

import (
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// apart are fields whose edits have tests of their own.
var apart = []string{
	"topology", "suspend", // what they do is said otherwise
	"namespace", "trust.domain", "ingress.gateways.0.service.loadBalancerClass", // stay as they are
	"egress.policy",       // of the other topologies
	"egress.destinations", // isthmusd's webhook judges them, and nobody answers here
}

// TestEachEditIsCarriedOut makes one edit after the other of a mesh, until its spec
// has each field that there is. After each the mesh is Ready: the API server has
// taken all that follows from it.
func TestEachEditIsCarriedOut(t *testing.T) {
	text, err := os.ReadFile("../../controllers/topology/testdata/every-field.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var full map[string]any
	if err := yaml.Unmarshal(text, &full); err != nil {
		t.Fatal(err)
	}
	m := newMesh(t, "edits", v1alpha1.EgressGateway, func(s *v1alpha1.MeshTopologySpec) { s.Ingress.Gateways[0].Name = "public" })
	m.patch(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: m.member}}, `{"metadata":{"labels":{"team":"shop"}}}`)
	m.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "dns"}})
	for _, name := range []string{"kube-dns", "resolver"} {
		m.create(&corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "dns", Name: name},
			Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 53, Protocol: corev1.ProtocolUDP}}},
		})
	}
	m.holds(v1alpha1.EgressGateway)
	first, inventory := m.get().Spec, m.inventory()
	done := 0
	for _, e := range leaves(nil, full) {
		at := strings.Join(e.path, ".")
		if slices.Contains(apart, at) {
			continue
		}
		done++
		if !t.Run(at, func(t *testing.T) {
			m.t = t
			m.put(e)
			m.holds(v1alpha1.EgressGateway)
		}) {
			break // the others would wait for it
		}
	}
	m.t = t
	t.Logf("%d edits", done)
	m.restsWithoutWrites()
	t.Run("egress.policy", func(t *testing.T) {
		m.edit(func(s *v1alpha1.MeshTopologySpec) {
			s.Topology, s.Egress.Policy = v1alpha1.SidecarEgress, v1alpha1.AllowAny
		})
		m.holds(v1alpha1.SidecarEgress)
		if c := m.config(); c.Outbound != topology.AllowAny {
			t.Errorf("published %s", c.Outbound)
		}
	})
	t.Run("all of them taken back", func(t *testing.T) {
		m.edit(func(s *v1alpha1.MeshTopologySpec) { *s = first })
		m.holds(v1alpha1.EgressGateway)
		m.has(inventory)
	})
	m.leavesNothing()
}

// edit is a value for a field. In its path a number stands for an element of a list.
type edit struct {
	path  []string
	value any
}

// leaves are the fields that have a value. Lists are one, but for gateways: of these
// only the name must be there.
func leaves(path []string, v any) []edit {
	var out []edit
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			out = append(out, leaves(append(slices.Clone(path), k), v[k])...)
		}
		return out
	case []any:
		if strings.Join(path, ".") == "ingress.gateways" {
			return leaves(append(slices.Clone(path), "0"), v[0])
		}
	}
	return []edit{{path, v}}
}

// put makes the edit, as a person does with what the server sent.
func (m *mesh) put(e edit) {
	m.t.Helper()
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("MeshTopology"))
	if err := m.admin.Get(m.t.Context(), client.ObjectKey{Name: m.name}, u); err != nil {
		m.t.Fatal(err)
	}
	before := u.DeepCopy()
	u.Object["spec"] = with(u.Object["spec"], e.path, e.value)
	if err := m.admin.Patch(m.t.Context(), u, client.MergeFrom(before), client.FieldValidation("Strict")); err != nil {
		m.t.Fatal(err)
	}
}

// with is v, with the value at the path in it.
func with(v any, path []string, value any) any {
	if len(path) == 0 {
		return value
	}
	if list, ok := v.([]any); ok {
		i, err := strconv.Atoi(path[0])
		if err != nil || i >= len(list) {
			return v
		}
		list[i] = with(list[i], path[1:], value)
		return list
	}
	fields, ok := v.(map[string]any)
	if !ok {
		fields = map[string]any{}
	}
	fields[path[0]] = with(fields[path[0]], path[1:], value)
	return fields
}
