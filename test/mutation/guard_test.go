// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package mutation

import (
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/operator/guard"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

const operatorUser = "system:serviceaccount:isthmus-operator:isthmus-operator"

var guarded = topology.Config{
	Name: "default", Namespace: "isthmus-system", Revision: "default-0-1-0",
	Injection: topology.Injection{Image: "isthmus/isthmus-proxy:0.1.0"},
	Bypass:    []topology.Bypass{{Name: "db", CIDR: "10.20.0.0/16", Ports: []int{5432, 5433}}, {Name: "net", CIDR: "192.0.2.0/24"}},
}

// guardObjects are the guard's policies, each with its bindings.
func guardObjects(t *testing.T) (policies []*admissionv1.ValidatingAdmissionPolicy, bindings map[string][]*admissionv1.ValidatingAdmissionPolicyBinding) {
	t.Helper()
	members := []metav1.LabelSelector{
		{MatchLabels: map[string]string{"istio.io/rev": "default"}},
		{MatchLabels: map[string]string{"istio-injection": "enabled"}},
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	facts, err := guard.New(guard.Facts{
		Topology: "default", Revision: guarded.Revision, Namespace: guarded.Namespace, Operator: operatorUser,
		Members: members, Peers: members, Now: now,
		Spec: v1alpha1.Guard{Mode: v1alpha1.GuardEnforce, Exemptions: []v1alpha1.Exemption{{
			Name: "logs", Namespace: "bank", ServiceAccount: "logs", Allow: []v1alpha1.GuardRule{v1alpha1.RuleHostPath}, Expires: metav1.NewTime(now.Add(time.Hour)),
		}, {
			Name: "all", Namespace: "bank", ServiceAccount: "everything", Expires: metav1.NewTime(now.Add(time.Hour)),
			Allow: []v1alpha1.GuardRule{
				v1alpha1.RuleHostNetwork, v1alpha1.RuleHostPID, v1alpha1.RuleHostIPC, v1alpha1.RuleShareProcessNamespace, v1alpha1.RuleHostPath, v1alpha1.RuleHostPorts,
				v1alpha1.RulePrivileged, v1alpha1.RuleCapabilities, v1alpha1.RuleProxyUser, v1alpha1.RuleProxyVolumes, v1alpha1.RuleProxyKeys, v1alpha1.RuleOptOut,
			},
		}}},
	}, guarded)
	if err != nil {
		t.Fatal(err)
	}
	bindings = map[string][]*admissionv1.ValidatingAdmissionPolicyBinding{}
	for _, o := range guard.Objects(facts) {
		switch o := o.(type) {
		case *admissionv1.ValidatingAdmissionPolicy:
			policies = append(policies, o)
		case *admissionv1.ValidatingAdmissionPolicyBinding:
			bindings[o.Spec.PolicyName] = append(bindings[o.Spec.PolicyName], o)
		}
	}
	return policies, bindings
}

// spared are clauses whose loss no case can show, each with the reason.
var spared = map[string]string{
	podGuard + `: validation HostPorts as 'HostPorts' in variables.allowed || size(variables.HostPorts) == 0`: "of pods that are there no containers are looked at",
	podGuard + `: validation ProxyImage as ` + image:                                                          "a pod that is created with another image is refused as Proxy",
}

// image is the rule of ProxyImage, for whatever is done to a pod.
const image = `(object.spec.containers + object.spec.?initContainers.orValue([])).all(c, !(c.name in ["istio-init", "istio-proxy"]) || c.image == "isthmus/isthmus-proxy:0.1.0"` +
	` || (oldObject.spec.containers + oldObject.spec.?initContainers.orValue([])).exists(o, o.name == c.name && o.image == c.image))`

// TestEveryClauseOfTheGuardCounts weakens the guard by one thing at a time: some
// request must be answered otherwise.
func TestEveryClauseOfTheGuardCounts(t *testing.T) {
	t.Parallel()
	env, err := newCompiler()
	if err != nil {
		t.Fatal(err)
	}
	policies, bindings := guardObjects(t)
	requests := admissions(t)
	used := map[string]bool{}
	for _, p := range policies {
		whole, err := newAdmitter(env, p, bindings[p.Name])
		if err != nil {
			t.Fatal(err)
		}
		for name, r := range requests {
			if r.policy != p.Name {
				continue
			}
			if got := whole.refusals(r.admission); !r.met(got) {
				t.Errorf("%s: want %q, got %q", name, r.want, got)
			}
		}
	}
	if t.Failed() {
		return
	}
	n := 0
	for _, p := range policies {
		for _, w := range weaken(p, bindings[p.Name]) {
			n++
			reason, known := spared[w.what]
			used[w.what] = true
			switch noticed := notices(t, env, w, requests); {
			case !noticed && !known:
				t.Errorf("nobody notices the loss: %s", w.what)
			case noticed && known:
				t.Errorf("%s is noticed; it is not to be spared: %s", w.what, reason)
			}
		}
	}
	for what := range spared {
		if !used[what] {
			t.Errorf("%s is spared and not there", what)
		}
	}
	t.Logf("%d clauses, %d requests", n, len(requests))
}

// notices tells whether some request is answered otherwise than it should be.
func notices(t *testing.T, env *compiler, w weakened, requests map[string]asked) bool {
	t.Helper()
	a, err := newAdmitter(env, w.policy, w.bindings)
	if err != nil {
		t.Fatalf("%s: %v", w.what, err)
	}
	for _, r := range requests {
		if r.policy == w.policy.Name && !r.met(a.refusals(r.admission)) {
			return true
		}
	}
	return false
}

// asked is a request, and what is said of it.
type asked struct {
	admission
	policy string
	// want is a part of the refusal; empty if the request is let in.
	want string
}

func (r asked) met(got []string) bool {
	if r.want == "" {
		return len(got) == 0
	}
	return slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, r.want) })
}
