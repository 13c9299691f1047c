// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/test/kube"
)

// template is of pods that the guard refuses; RESTART is how they end.
const template = `{metadata: {labels: {app: attempt}}, spec: {hostNetwork: true, restartPolicy: RESTART, containers: [{name: app, image: app}]}}`

// specs of workloads, around a TEMPLATE.
var specs = map[string]struct {
	apiVersion, spec, restart string
	// owner of the pods, whose events tell of the refusal; none where that is not tried.
	owner string
}{
	"Deployment":            {"apps/v1", "{selector: {matchLabels: {app: attempt}}, template: TEMPLATE}", "Always", "ReplicaSet"},
	"ReplicaSet":            {"apps/v1", "{selector: {matchLabels: {app: attempt}}, template: TEMPLATE}", "Always", "ReplicaSet"},
	"StatefulSet":           {"apps/v1", "{serviceName: a, selector: {matchLabels: {app: attempt}}, template: TEMPLATE}", "Always", "StatefulSet"},
	"DaemonSet":             {"apps/v1", "{selector: {matchLabels: {app: attempt}}, template: TEMPLATE}", "Always", "DaemonSet"},
	"ReplicationController": {"v1", "{selector: {app: attempt}, template: TEMPLATE}", "Always", "ReplicationController"},
	"Job":                   {"batch/v1", "{template: TEMPLATE}", "Never", "Job"},
	"CronJob":               {"batch/v1", `{schedule: "0 0 1 1 *", jobTemplate: {spec: {template: TEMPLATE}}}`, "Never", ""},
}

// tenantMakesWorkloads applies one of each kind. The API server warns of it at
// once; and whoever makes the pods tells why they are refused.
func tenantMakesWorkloads(t *testing.T, k *kube.Client) {
	for kind, w := range specs {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			name := "attempt-" + strings.ToLower(kind)
			spec := strings.ReplaceAll(w.spec, "TEMPLATE", strings.ReplaceAll(template, "RESTART", w.restart))
			spec = strings.ReplaceAll(spec, "app: attempt", "app: "+name)
			warned := warnings{}
			noisy, err := k.Heard(&warned)
			if err != nil {
				t.Fatal(err)
			}
			if err := noisy.Apply(t.Context(), fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: %s, namespace: %s}\nspec: %s\n", w.apiVersion, kind, name, tenancy, spec)); err != nil {
				t.Fatal(err)
			}
			if want := "HostNetwork: spec.hostNetwork: pods of this template will be refused: "; !strings.Contains(strings.Join(warned, "\n"), want) {
				t.Errorf("want a warning with %q, got %q", want, warned)
			}
			if w.owner != "" {
				awaitRefusal(t, tenancy, w.owner, name, "HostNetwork: spec.hostNetwork")
			}
		})
	}
}

// warnings keeps what the API server warns of.
type warnings []string

var _ rest.WarningHandler = (*warnings)(nil)

func (w *warnings) HandleWarningHeader(_ int, _, text string) { *w = append(*w, text) }
