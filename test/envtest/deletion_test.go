// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
)

// departures are the steps of a deletion, each by the writes that it consists of.
var departures = []struct{ step, write string }{
	{"guard", "DELETE /apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"},
	{"webhooks", "DELETE /apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/"},
	{"policies", "DELETE /apis/networking.k8s.io/v1/namespaces/mesh-"},
	{"routes", "PATCH /api/v1/namespaces/mesh-%s/configmaps/isthmus-%s"},
	{"gateways", "DELETE /apis/apps/v1/namespaces/mesh-%s/deployments/egress-%s"},
	{"control plane", "DELETE /apis/apps/v1/namespaces/mesh-%s/deployments/isthmusd-%s-0-1-0"},
	{"right", "DELETE /apis/rbac.authorization.k8s.io/v1/namespaces/mesh-%s/rolebindings/isthmus-operator-%s"},
}

// steps that the writes consist of, in their order.
func steps(name string, writes []string) []string {
	var out []string
	for _, w := range writes {
		for _, d := range departures {
			of := strings.ReplaceAll(d.write, "%s", name)
			if strings.HasPrefix(w, of) && strings.Contains(w, name) && !slices.Contains(out[max(len(out)-1, 0):], d.step) {
				out = append(out, d.step)
			}
		}
	}
	return out
}

func TestDeletionEndsInOrder(t *testing.T) {
	all := []string{"guard", "webhooks", "policies", "routes", "gateways", "control plane", "right"}
	unanswered := slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == "routes" })
	for name, tt := range map[string]struct {
		// ails is what is wrong with the control plane.
		ails func(*mesh)
		// waits is what the deletion is said to wait for, until time has passed.
		waits string
		want  []string
	}{
		"alive": {func(*mesh) {}, "", all},
		"away": {func(m *mesh) {
			d := read(m, m.own, "isthmusd-"+m.name+"-0-1-0", &appsv1.Deployment{})
			m.kubelet.hold(d.Name, true)
			before := d.DeepCopy()
			d.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionFalse, Reason: "Test"}}
			if err := m.admin.Status().Patch(m.t.Context(), d, client.MergeFrom(before)); err != nil {
				m.t.Fatal(err)
			}
			m.condition(v1alpha1.ConditionControlPlaneReady, "False", v1alpha1.ReasonUnavailable)
		}, "", unanswered},
		"deaf": {func(m *mesh) { m.proxies.hold(true) }, "routes: waiting for proxies to follow the last routes", all},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t, "ends-"+name, v1alpha1.EgressGateway, nil)
			t.Cleanup(func() { m.proxies.hold(false); m.ahead.Store(0) })
			m.holds(v1alpha1.EgressGateway)
			tt.ails(m)
			before := len(m.requests.written())
			if err := m.admin.Delete(t.Context(), m.get()); err != nil {
				t.Fatal(err)
			}
			if tt.waits != "" {
				eventually(t, "what is waited for", func() error {
					if got := m.message(v1alpha1.ConditionReady); !strings.Contains(got, tt.waits) {
						return fmt.Errorf("says %q", got)
					}
					return m.kstatus(status.TerminatingStatus)
				})
				m.event(v1alpha1.ReasonDeleting, tt.waits)
				m.ahead.Store(int64(time.Minute))
			}
			m.gone()
			m.has([]string{"Secret own/isthmus-ca-" + m.name})
			if got := steps(m.name, m.requests.written()[before:]); !slices.Equal(got, tt.want) {
				t.Errorf("went %q, want %q", got, tt.want)
			}
		})
	}
}
