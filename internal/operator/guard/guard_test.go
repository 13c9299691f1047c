// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package guard_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/operator/guard"
	"github.com/isthmus-mesh/isthmus/internal/operator/guard/guardtest"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

var config = topology.Config{
	Name: "default", Namespace: "isthmus-system", Revision: "default-0-1-0",
	Injection: topology.Injection{Image: "isthmus/isthmus-proxy:0.1.0"},
	Bypass:    []topology.Bypass{{Name: "db", CIDR: "10.20.0.0/16", Ports: []int{5432, 5433}}, {Name: "net", CIDR: "192.0.2.0/24"}},
}

func facts(t *testing.T, change func(*guard.Facts)) guard.Facts {
	t.Helper()
	f := guard.Facts{
		Topology: "default", Revision: config.Revision, Namespace: config.Namespace,
		Operator: "system:serviceaccount:isthmus-operator:isthmus-operator",
		Members:  []metav1.LabelSelector{{MatchLabels: map[string]string{"istio.io/rev": "default"}}},
		Now:      time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	if change != nil {
		change(&f)
	}
	f, err := guard.New(f, config)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestPodsThatAreThereAreJudgedByTheSameRules(t *testing.T) {
	t.Parallel()
	cases, err := guardtest.Cases(config)
	if err != nil {
		t.Fatal(err)
	}
	judge, err := guard.NewJudge(facts(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			verdict, err := judge.Pod(tt.Pod)
			if err != nil {
				t.Fatal(err)
			}
			rule, _, _ := strings.Cut(tt.Want, ":")
			if rule == "Proxy" {
				return // what a proxy looks like is asked at admission only
			}
			if rule != "" && !slices.Contains(verdict.Breaks, v1alpha1.GuardRule(rule)) || rule == "" && len(verdict.Breaks) > 0 {
				t.Errorf("breaks %v, want %q", verdict.Breaks, rule)
			}
		})
	}
}

func TestExemptions(t *testing.T) {
	t.Parallel()
	pod := func(namespace, account string) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "a"},
			Spec:       corev1.PodSpec{HostNetwork: true, HostPID: true, ServiceAccountName: account, Containers: []corev1.Container{{Name: "app"}}},
		}
	}
	exemption := v1alpha1.Exemption{
		Name: "logs", Namespace: "shop", ServiceAccount: "logs", Allow: []v1alpha1.GuardRule{v1alpha1.RuleHostNetwork},
		Expires: metav1.NewTime(time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)),
	}
	ended := exemption
	ended.Expires = metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	tests := map[string]struct {
		exemption v1alpha1.Exemption
		pod       *corev1.Pod
		want      []v1alpha1.GuardRule
	}{
		"its account":                    {exemption, pod("shop", "logs"), []v1alpha1.GuardRule{v1alpha1.RuleHostPID}},
		"another account":                {exemption, pod("shop", ""), []v1alpha1.GuardRule{v1alpha1.RuleHostNetwork, v1alpha1.RuleHostPID}},
		"the account's name elsewhere":   {exemption, pod("ship", "logs"), []v1alpha1.GuardRule{v1alpha1.RuleHostNetwork, v1alpha1.RuleHostPID}},
		"an exemption whose day is over": {ended, pod("shop", "logs"), []v1alpha1.GuardRule{v1alpha1.RuleHostNetwork, v1alpha1.RuleHostPID}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			judge, err := guard.NewJudge(facts(t, func(f *guard.Facts) { f.Spec.Exemptions = []v1alpha1.Exemption{tt.exemption} }))
			if err != nil {
				t.Fatal(err)
			}
			verdict, err := judge.Pod(tt.pod)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(verdict.Breaks, tt.want) {
				t.Errorf("breaks %v, want %v", verdict.Breaks, tt.want)
			}
		})
	}
}

func BenchmarkJudge(b *testing.B) {
	f, err := guard.New(guard.Facts{Topology: "default", Namespace: "isthmus-system"}, config)
	if err != nil {
		b.Fatal(err)
	}
	judge, err := guard.NewJudge(f)
	if err != nil {
		b.Fatal(err)
	}
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}}}
	for b.Loop() {
		if _, err := judge.Pod(pod); err != nil {
			b.Fatal(err)
		}
	}
}
