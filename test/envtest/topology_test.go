// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// always is what every topology has.
func always(name string) []string {
	return []string{
		"ClusterRoleBinding /isthmusd-" + name,
		"ConfigMap member/isthmus-ca-root-" + name,
		"ConfigMap own/isthmus-" + name,
		"ConfigMap own/isthmus-ca-root-" + name,
		"Deployment own/ingress-" + name,
		"Deployment own/isthmusd-" + name + "-0-1-0",
		"MeshMember member/" + name,
		"MutatingWebhookConfiguration /isthmus-injector-" + name,
		"RoleBinding own/isthmus-operator-" + name,
		"RoleBinding own/isthmusd-" + name,
		"Secret own/isthmus-ca-" + name,
		"Service own/ingress-" + name,
		"Service own/isthmusd-" + name,
		"ServiceAccount own/ingress-" + name,
		"ServiceAccount own/isthmusd-" + name,
		"ValidatingWebhookConfiguration /isthmus-validator-" + name,
	}
}

func gatewayAndWalls(name string) []string {
	return []string{
		"Deployment own/egress-" + name,
		"NetworkPolicy member/isthmus-egress-" + name,
		"NetworkPolicy own/isthmus-control-plane-" + name,
		"NetworkPolicy own/isthmus-egress-" + name,
		"NetworkPolicy own/isthmus-ingress-" + name,
		"Service own/egress-" + name,
		"ServiceAccount own/egress-" + name,
		"ValidatingAdmissionPolicy /isthmus-guard-" + name,
		"ValidatingAdmissionPolicy /isthmus-guard.enforced-" + name,
		"ValidatingAdmissionPolicy /isthmus-guard.exec-" + name,
		"ValidatingAdmissionPolicy /isthmus-guard.policies-" + name,
		"ValidatingAdmissionPolicy /isthmus-guard.templates-" + name,
		"ValidatingAdmissionPolicyBinding /isthmus-guard.0-" + name,
		"ValidatingAdmissionPolicyBinding /isthmus-guard.enforced.0-" + name,
		"ValidatingAdmissionPolicyBinding /isthmus-guard.exec.0-" + name,
		"ValidatingAdmissionPolicyBinding /isthmus-guard.policies.0-" + name,
		"ValidatingAdmissionPolicyBinding /isthmus-guard.policies.1-" + name,
		"ValidatingAdmissionPolicyBinding /isthmus-guard.templates.0-" + name,
	}
}

// has waits until exactly these objects are there.
func (m *mesh) has(want []string) {
	m.t.Helper()
	want = slices.Sorted(slices.Values(want))
	eventually(m.t, "inventory", func() error {
		if diff := cmp.Diff(want, m.inventory()); diff != "" {
			return fmt.Errorf("(-want +got):\n%s", diff)
		}
		return nil
	})
}

func TestIngressOnly(t *testing.T) {
	m := newMesh(t, "ingress", v1alpha1.IngressOnly, func(*v1alpha1.MeshTopologySpec) { pods(t, "member-ingress") })
	m.holds(v1alpha1.IngressOnly)
	m.has(always(m.name))
	c := m.config()
	if c.Topology != topology.IngressOnly || c.Outbound != topology.AllowAny || c.EgressGateway != nil || len(c.Allowance) != 0 {
		t.Errorf("published %+v", c)
	}
	m.condition(v1alpha1.ConditionEgressEnforced, metav1.ConditionUnknown, v1alpha1.ReasonNotApplicable)
	m.members()
	m.restsWithoutWrites()
	m.leavesNothing()
}

func TestSidecarEgress(t *testing.T) {
	// Nobody answers the validation webhook here: it must not be there before the
	// ServiceEntries are.
	shared.kubelet.hold("isthmusd-sidecar-0-1-0", true)
	m := newMesh(t, "sidecar", v1alpha1.SidecarEgress, func(s *v1alpha1.MeshTopologySpec) {
		s.Egress.Destinations = []v1alpha1.Destination{{
			Name: "api", Hosts: []string{"api.example.com", "*.example.org"},
			Ports: []v1alpha1.DestinationPort{{Number: 443, Protocol: "TLS"}},
		}}
		s.Egress.Bypass = []v1alpha1.Bypass{{Name: "db", CIDR: "10.20.0.0/16", Ports: []int32{5432}}}
	})
	eventually(t, "ServiceEntries", func() error {
		if list := m.inventory(); !slices.Contains(list, "ServiceEntry own/api-wildcard-"+m.name) {
			return fmt.Errorf("only %v", list)
		}
		return nil
	})
	m.kubelet.hold("isthmusd-sidecar-0-1-0", false)
	m.holds(v1alpha1.SidecarEgress)
	m.has(slices.Concat(always(m.name), []string{"ServiceEntry own/api-" + m.name, "ServiceEntry own/api-wildcard-" + m.name}))
	c := m.config()
	if c.Topology != topology.SidecarEgress || c.Outbound != topology.RegistryOnly {
		t.Errorf("published %+v", c)
	}
	if want := []topology.Bypass{{Name: "db", CIDR: "10.20.0.0/16", Ports: []int{5432}}}; cmp.Diff(want, c.Bypass) != "" {
		t.Errorf("bypass %+v", c.Bypass)
	}
	m.restsWithoutWrites()
	m.edit(func(s *v1alpha1.MeshTopologySpec) { s.Egress.Destinations = nil })
	m.has(always(m.name))
	m.leavesNothing()
}

func TestEgressGateway(t *testing.T) {
	m := newMesh(t, "gateway", v1alpha1.EgressGateway, func(s *v1alpha1.MeshTopologySpec) {
		s.Egress.Gateway.Workload.Replicas = v1alpha1.Replicas{Min: 2}
		s.Egress.Bypass = []v1alpha1.Bypass{{Name: "db", CIDR: "10.20.0.0/16", Ports: []int32{5432},
			PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "report"}}}}
	})
	m.holds(v1alpha1.EgressGateway)
	var policies []string
	for _, id := range m.inventory() {
		if strings.HasPrefix(id, "NetworkPolicy member/") {
			policies = append(policies, id)
		}
	}
	if len(policies) != 2 {
		t.Errorf("policies of the member: %v; want one for all pods and one for the bypass", policies)
	}
	c := m.config()
	if c.Topology != topology.EgressGateway || c.Outbound != topology.RegistryOnly || c.EgressGateway == nil || len(c.Allowance) == 0 {
		t.Errorf("published %+v", c)
	}
	np := read(m, m.member, "isthmus-egress-"+m.name, &networkingv1.NetworkPolicy{})
	if len(np.Spec.PodSelector.MatchLabels) != 0 || !slices.Equal(np.Spec.PolicyTypes, []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}) {
		t.Errorf("the member's policy does not isolate all pods: %+v", np.Spec)
	}
	for _, r := range np.Spec.Egress {
		for _, to := range r.To {
			if to.IPBlock != nil && strings.HasPrefix(to.IPBlock.CIDR, "10.20.") {
				t.Error("the bypass is open for pods that it does not select")
			}
		}
	}
	d := read(m, m.own, "egress-"+m.name, &appsv1.Deployment{})
	if *d.Spec.Replicas != 2 {
		t.Errorf("egress gateway has %d replicas", *d.Spec.Replicas)
	}
	m.condition(v1alpha1.ConditionEgressEnforced, metav1.ConditionUnknown, v1alpha1.ReasonNotMeasured)
	m.restsWithoutWrites()
	m.leavesNothing()
}

func TestEveryWayBetweenTopologies(t *testing.T) {
	const in, car, gw = v1alpha1.IngressOnly, v1alpha1.SidecarEgress, v1alpha1.EgressGateway
	m := newMesh(t, "ways", in, nil)
	m.holds(in)
	for _, to := range []v1alpha1.TopologyKind{car, in, gw, car, gw, in} {
		from := m.get().Status.Topology
		m.proxies.hold(true)
		m.kubelet.hold("egress-"+m.name, true)
		m.edit(func(s *v1alpha1.MeshTopologySpec) { s.Topology = to })
		if to == gw {
			m.phase(v1alpha1.PhasePreparing)
			if c := m.config(); c.Topology != topology.Kind(from) {
				t.Errorf("%s to %s: routes are %s before the gateway serves", from, to, c.Topology)
			}
			m.kubelet.hold("egress-"+m.name, false)
		}
		m.phase(v1alpha1.PhaseRouting)
		m.condition(v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonTransition)
		if c := m.config(); c.Topology != topology.Kind(to) {
			t.Errorf("%s to %s: routes are %s while routing", from, to, c.Topology)
		}
		if list := m.inventory(); slices.ContainsFunc(list, func(id string) bool { return strings.HasPrefix(id, "NetworkPolicy") }) {
			t.Errorf("%s to %s: walls stand while routing: %v", from, to, list)
		}
		if gatewayStands := slices.Contains(m.inventory(), "Deployment own/egress-"+m.name); gatewayStands != (from == gw || to == gw) {
			t.Errorf("%s to %s: gateway stands while routing: %v", from, to, gatewayStands)
		}
		m.proxies.hold(false)
		m.kubelet.hold("egress-"+m.name, false)
		m.holds(to)
		if to == gw {
			m.has(slices.Concat(always(m.name), gatewayAndWalls(m.name)))
		} else {
			m.has(always(m.name))
		}
	}
	m.leavesNothing()
}

func TestAChangeOfMindTurnsRound(t *testing.T) {
	m := newMesh(t, "mind", v1alpha1.IngressOnly, nil)
	m.holds(v1alpha1.IngressOnly)
	m.kubelet.hold("egress-"+m.name, true)
	m.edit(func(s *v1alpha1.MeshTopologySpec) { s.Topology = v1alpha1.EgressGateway })
	m.phase(v1alpha1.PhasePreparing)
	m.edit(func(s *v1alpha1.MeshTopologySpec) { s.Topology = v1alpha1.IngressOnly })
	m.holds(v1alpha1.IngressOnly)
	m.has(always(m.name))
	m.leavesNothing()
}

// pods makes one pod of each sort in a namespace, before there is a webhook, which
// nobody would answer here.
func pods(t *testing.T, namespace string) {
	t.Helper()
	app := corev1.Container{Name: "app", Image: "app"}
	for name, change := range map[string]func(*corev1.Pod){
		"with": func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "istio-init", Image: "proxy"}}
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "istio-proxy", Image: "proxy"})
		},
		"without":   func(*corev1.Pod) {},
		"opted-out": func(p *corev1.Pod) { p.Labels = map[string]string{"sidecar.istio.io/inject": "false"} },
		"host":      func(p *corev1.Pod) { p.Spec.HostNetwork = true },
	} {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{app}},
		}
		change(p)
		if err := shared.admin.Create(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
}

// members checks what is counted of pods, and that the namespace has its root
// certificate and is covered by the webhook.
func (m *mesh) members() {
	m.t.Helper()
	want := &v1alpha1.MembersStatus{Namespaces: 1, Pods: 3, Injected: 1, Missing: 1, Examples: []string{m.member + "/without"}}
	eventually(m.t, "counts", func() error {
		if diff := cmp.Diff(want, m.get().Status.Members); diff != "" {
			return fmt.Errorf("(-want +got):\n%s", diff)
		}
		return nil
	})
	root := read(m, m.member, "isthmus-ca-root-"+m.name, &corev1.ConfigMap{}).Data["root-cert.pem"]
	hook := read(m, "", "isthmus-injector-"+m.name, &admissionv1.MutatingWebhookConfiguration{})
	for _, w := range hook.Webhooks {
		if string(w.ClientConfig.CABundle) != root || root == "" {
			m.t.Errorf("webhook %s does not trust the mesh's root", w.Name)
		}
		if w.NamespaceSelector.MatchLabels["istio.io/rev"] != m.name {
			m.t.Errorf("webhook %s selects %v", w.Name, w.NamespaceSelector)
		}
	}
}

// restsWithoutWrites makes the operator look at everything again and sees that it
// writes nothing.
func (m *mesh) restsWithoutWrites() {
	m.t.Helper()
	config := fmt.Sprintf("/api/v1/namespaces/%s/configmaps/%s", m.own, topology.ConfigMapName(m.name))
	look := func() {
		m.t.Helper()
		seen := m.requests.read(config)
		var ns corev1.Namespace
		if err := m.admin.Get(m.t.Context(), client.ObjectKey{Name: m.member}, &ns); err != nil {
			m.t.Fatal(err)
		}
		before := ns.DeepCopy()
		ns.Annotations = map[string]string{"touched": fmt.Sprint(seen)}
		if err := m.admin.Patch(m.t.Context(), &ns, client.MergeFrom(before)); err != nil {
			m.t.Fatal(err)
		}
		eventually(m.t, "another look", func() error {
			if m.requests.read(config) > seen {
				return nil
			}
			return fmt.Errorf("none yet")
		})
	}
	for range 3 {
		look() // whatever was still under way
	}
	before := len(m.requests.written())
	for range 5 {
		look()
	}
	if written := m.requests.written()[before:]; len(written) > 0 {
		m.t.Errorf("writes at rest: %v", written)
	}
}

// leavesNothing deletes the topology: only the CA stays, as spec.uninstall says.
func (m *mesh) leavesNothing() {
	m.t.Helper()
	m.remove()
	m.has([]string{"Secret own/isthmus-ca-" + m.name})
}
