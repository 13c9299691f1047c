// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestConfigSurvivesMarshalAndParse(t *testing.T) {
	t.Parallel()
	want := Config{
		Name: "default", Namespace: "isthmus-system", Topology: EgressGateway, Outbound: RegistryOnly,
		MTLS: Strict, TrustDomain: "cluster.local", ClusterDomain: "cluster.local",
		Bypass: []Bypass{{
			Name: "reports", CIDR: "10.20.0.0/16", Ports: []int{5432},
			Pods: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "report"}},
		}},
		Injection: Injection{
			Policy: InjectAll, Image: "isthmus/isthmus-proxy:0.1.0",
			Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m")},
			},
		},
	}
	text, err := want.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("config changed on its way (-want +got):\n%s", diff)
	}
}

func TestEmptyInjectionIsLeftOut(t *testing.T) {
	t.Parallel()
	text, err := Config{Name: "default"}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"injection", "bypass"} {
		if strings.Contains(text, key) {
			t.Errorf("%q is rendered although it is empty:\n%s", key, text)
		}
	}
}
