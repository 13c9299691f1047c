// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package mutation

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controllers/member"
	"github.com/isthmus-mesh/isthmus/controllers/topology"
	"github.com/isthmus-mesh/isthmus/internal/operator/allowance"
	"github.com/isthmus-mesh/isthmus/internal/operator/revision"
	"github.com/isthmus-mesh/isthmus/internal/operator/transition"
	mesh "github.com/isthmus-mesh/isthmus/internal/topology"
)

// Addresses of the world.
const (
	outside      = "203.0.113.20" // nobody's
	bypassed     = "203.0.113.9"  // opened by spec.egress.bypass
	permitted    = "192.0.2.10"   // opened by spec.egress.networkPolicy.allow
	withheld     = "192.0.2.129"  // left out of that again
	apiServer    = "10.88.0.1"
	apiService   = "10.96.0.1"
	dnsService   = "10.96.0.10"
	nodeLocalDNS = "169.254.20.10"
	metadata     = "169.254.169.254"
	controlPlane = "10.96.1.1"
	egressIP     = "10.96.1.2"
)

var namespaces = map[string]map[string]string{
	"shop":             {"kubernetes.io/metadata.name": "shop", "istio-injection": "enabled"},
	"bank":             {"kubernetes.io/metadata.name": "bank", "istio.io/rev": "default"},
	"both":             {"kubernetes.io/metadata.name": "both", "istio.io/rev": "default", "istio-injection": "enabled"},
	"strangers":        {"kubernetes.io/metadata.name": "strangers"},
	"kube-system":      {"kubernetes.io/metadata.name": "kube-system", "istio-injection": "enabled", "istio.io/rev": "default"},
	"kube-public":      {"kubernetes.io/metadata.name": "kube-public", "istio-injection": "enabled", "istio.io/rev": "default"},
	"kube-node-lease":  {"kubernetes.io/metadata.name": "kube-node-lease", "istio-injection": "enabled", "istio.io/rev": "default"},
	"isthmus-operator": {"kubernetes.io/metadata.name": "isthmus-operator", "istio-injection": "enabled", "istio.io/rev": "default"},
	"isthmus-system":   {"kubernetes.io/metadata.name": "isthmus-system", "istio-injection": "enabled", "istio.io/rev": "default"},
}

func part(component string) party {
	return party{namespace: "isthmus-system", labels: map[string]string{
		v1alpha1.LabelTopology: "default", v1alpha1.LabelComponent: component,
	}, address: "10.244.0.100"}
}

func pod(namespace string, labels ...string) party {
	p := party{namespace: namespace, labels: map[string]string{}, address: "10.244.0.50"}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		p.labels[k] = v
	}
	return p
}

func at(address string) party { return party{address: address} }

// rendered is what the operator applies for these facts: by the decisions of its
// own controllers, around its own parts and in each member namespace.
func rendered(t *testing.T) []*networkingv1.NetworkPolicy {
	t.Helper()
	f := facts()
	plan, err := topology.Decide(f)
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Config.Allowance) == 0 {
		t.Fatalf("no allowance: %s", plan.Accepted.Message)
	}
	objects := plan.Objects
	for _, ns := range []string{"shop", "bank", "both"} {
		p, err := member.Decide(&member.Facts{
			Namespace: corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns, Labels: namespaces[ns]}},
			Mesh:      f.Mesh, State: f.State, Published: plan.Config, Root: "root",
		})
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, p.Objects...)
	}
	return policies(t, objects)
}

func policies(t *testing.T, objects []*unstructured.Unstructured) []*networkingv1.NetworkPolicy {
	t.Helper()
	var out []*networkingv1.NetworkPolicy
	for _, o := range objects {
		if o.GetKind() != "NetworkPolicy" {
			continue
		}
		var p networkingv1.NetworkPolicy
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &p); err != nil {
			t.Fatal(err)
		}
		out = append(out, &p)
	}
	return out
}

func facts() *topology.Facts {
	m := &v1alpha1.MeshTopology{ObjectMeta: metav1.ObjectMeta{Name: "default", UID: "u1", Generation: 1}}
	m.Spec = v1alpha1.MeshTopologySpec{
		Topology: v1alpha1.EgressGateway, Namespace: "isthmus-system", MTLS: v1alpha1.MTLSStrict,
		Trust:   v1alpha1.Trust{Domain: "cluster.local", CA: v1alpha1.CA{Type: v1alpha1.CASelfSigned}},
		Ingress: v1alpha1.Ingress{Gateways: []v1alpha1.IngressGateway{{Name: "ingress"}}},
		Egress: v1alpha1.Egress{
			NetworkPolicy: v1alpha1.EgressNetworkPolicy{Mode: v1alpha1.PolicyEnforce, APIServer: v1alpha1.APIServerAccess("Auto"), Allow: []v1alpha1.Allow{{
				Name: "partner", To: v1alpha1.AllowPeer{CIDR: "192.0.2.0/24", Except: []string{"192.0.2.128/25"}},
				Ports: []v1alpha1.AllowPort{{Protocol: "TCP", Number: 8443}},
			}}},
			Bypass: []v1alpha1.Bypass{{Name: "reports", CIDR: bypassed + "/32", Ports: []int32{9000},
				PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"egress": "direct"}}}},
		},
	}
	dns := allowance.Service{Namespace: "kube-system", Selector: map[string]string{"k8s-app": "kube-dns"}, Addresses: []string{dnsService},
		Ports: []mesh.Port{{Protocol: "UDP", Number: 53}, {Protocol: "TCP", Number: 53}}}
	cache := allowance.Service{Namespace: "kube-system", Selector: map[string]string{"k8s-app": "node-local-dns"}, Addresses: []string{nodeLocalDNS}}
	api := allowance.Service{Addresses: []string{apiService, apiServer}, Ports: []mesh.Port{{Protocol: "TCP", Number: 443}, {Protocol: "TCP", Number: 6443}}}
	service := func(ip string) *corev1.Service {
		return &corev1.Service{Spec: corev1.ServiceSpec{ClusterIPs: []string{ip}}}
	}
	return &topology.Facts{
		Settings: topology.Settings{Version: "0.1.0", Registry: "isthmus", ClusterDomain: "cluster.local", Namespace: "isthmus-operator", ServiceAccount: "isthmus-operator"},
		Mesh:     m,
		State:    transition.State{Active: v1alpha1.EgressGateway, Target: v1alpha1.EgressGateway},
		Parts: topology.Parts{
			ControlPlane: &appsv1.Deployment{}, Service: service(controlPlane),
			Gateways: map[string]topology.Gateway{revision.Egress: {Deployment: &appsv1.Deployment{}, Service: service(egressIP)}},
		},
		Cluster:   topology.Cluster{DNS: dns, NodeDNS: cache, APIServer: api},
		Trust:     topology.Trust{Root: "root", Fingerprint: "f", NotAfter: time.Date(2036, 1, 1, 0, 0, 0, 0, time.UTC)},
		Published: mesh.Config{Topology: mesh.Kind(v1alpha1.EgressGateway), Epoch: "e1"},
		Now:       time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
}
