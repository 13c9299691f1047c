// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/version"
)

// TestWhatKubectlShows asks as kubectl get does.
func TestWhatKubectlShows(t *testing.T) {
	m := newMesh(t, "shown", v1alpha1.IngressOnly, nil)
	m.holds(v1alpha1.IngressOnly)
	want := []string{
		"Name=shown", "TOPOLOGY=IngressOnly", "ACTIVE=IngressOnly", "READY=True", "ENFORCED=Unknown", "MEMBERS=1", "VERSION=" + version.Current,
	}
	if diff := cmp.Diff(want, m.row()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	t.Run("where gateways are reached", func(t *testing.T) {
		gateway := func(address string) {
			t.Helper()
			want := []v1alpha1.GatewayStatus{{Name: "ingress", Addresses: []string{address}, Ready: 1, Replicas: 1}}
			eventually(t, "gateways", func() error {
				if diff := cmp.Diff(want, m.get().Status.Gateways); diff != "" {
					return fmt.Errorf("(-want +got):\n%s", diff)
				}
				return nil
			})
		}
		s := read(m, m.own, "ingress-"+m.name, &corev1.Service{})
		gateway(s.Spec.ClusterIP)
		before := s.DeepCopy()
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "198.51.100.80"}}
		if err := m.admin.Status().Patch(t.Context(), s, client.MergeFrom(before)); err != nil {
			t.Fatal(err)
		}
		gateway("198.51.100.80")
	})
	m.leavesNothing()
}

// row is what is shown of the mesh without being asked for more, but its age.
func (m *mesh) row() []string {
	m.t.Helper()
	c, err := rest.HTTPClientFor(m.world.config)
	if err != nil {
		m.t.Fatal(err)
	}
	server, _, err := rest.DefaultServerUrlFor(m.world.config)
	if err != nil {
		m.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(m.t.Context(), http.MethodGet, server.JoinPath("apis/isthmus.dev/v1alpha1/meshtopologies", m.name).String(), nil)
	if err != nil {
		m.t.Fatal(err)
	}
	req.Header.Set("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
	res, err := c.Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	defer res.Body.Close()
	var table metav1.Table
	if err := json.NewDecoder(res.Body).Decode(&table); err != nil {
		m.t.Fatal(err)
	}
	var out []string
	for i, column := range table.ColumnDefinitions {
		if column.Priority == 0 && column.Name != "AGE" {
			out = append(out, fmt.Sprintf("%s=%v", column.Name, table.Rows[0].Cells[i]))
		}
	}
	return out
}
