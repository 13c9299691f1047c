// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"slices"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// object is a typed Kubernetes object.
type object interface {
	metav1.Object
	runtime.Object
}

// kind is one kind of objects: how it is called, and what it says.
type kind struct {
	name     string
	group    string
	versions []string // that a file may use; the first is watched
	resource string
	// cluster is true for kinds without a namespace.
	cluster bool
	// custom is true for kinds that the API server may not serve.
	custom bool
	new    func() object
	rows   func(Converter, object) ([]Row, error)
}

// Converter turns objects into rows. Its functions are pure.
type Converter struct {
	// Topology names the ConfigMap that configures this control plane, and fills
	// in what it leaves out.
	Topology topology.Config
	// Standalone is set when there is no Kubernetes that would make
	// EndpointSlices: pods are then the endpoints of the Services that select them.
	Standalone bool
}

func (c Converter) convert(k *kind, o object) ([]Row, error) { return k.rows(c, o) }

func newKind[T any, P interface {
	*T
	object
}](k kind, rows func(Converter, P) ([]Row, error)) *kind {
	k.new = func() object { return P(new(T)) }
	k.rows = func(c Converter, o object) ([]Row, error) { return rows(c, o.(P)) }
	return &k
}

// kinds are all kinds that isthmusd knows.
func kinds() []*kind {
	core := func(name, resource string) kind {
		return kind{name: name, versions: []string{"v1"}, resource: resource}
	}
	cluster := func(name, resource string) kind {
		return kind{name: name, versions: []string{"v1"}, resource: resource, cluster: true}
	}
	istio := func(group, name, resource string) kind {
		return kind{
			name: name, group: group, resource: resource, custom: true,
			versions: []string{"v1", "v1beta1", "v1alpha3"},
		}
	}
	const net, sec = "networking.istio.io", "security.istio.io"
	slice := kind{name: "EndpointSlice", group: "discovery.k8s.io", versions: []string{"v1"}, resource: "endpointslices"}
	return []*kind{
		newKind[corev1.Namespace](cluster("Namespace", "namespaces"), Converter.namespace),
		newKind[corev1.Node](cluster("Node", "nodes"), Converter.node),
		newKind[corev1.Service](core("Service", "services"), Converter.service),
		newKind[discoveryv1.EndpointSlice](slice, Converter.endpointSlice),
		newKind[corev1.Pod](core("Pod", "pods"), Converter.pod),
		newKind[corev1.ServiceAccount](core("ServiceAccount", "serviceaccounts"), Converter.account),
		newKind[corev1.Secret](core("Secret", "secrets"), Converter.secret),
		newKind[corev1.ConfigMap](core("ConfigMap", "configmaps"), Converter.configMap),
		newKind[networking.Gateway](istio(net, "Gateway", "gateways"), Converter.gateway),
		newKind[networking.VirtualService](istio(net, "VirtualService", "virtualservices"), Converter.virtualService),
		newKind[networking.DestinationRule](istio(net, "DestinationRule", "destinationrules"), Converter.destinationRule),
		newKind[networking.ServiceEntry](istio(net, "ServiceEntry", "serviceentries"), Converter.serviceEntry),
		newKind[networking.WorkloadEntry](istio(net, "WorkloadEntry", "workloadentries"), Converter.workloadEntry),
		newKind[networking.Sidecar](istio(net, "Sidecar", "sidecars"), Converter.sidecar),
		newKind[security.PeerAuthentication](istio(sec, "PeerAuthentication", "peerauthentications"), Converter.peerAuthentication),
	}
}

// findKind finds the kind of a document, or nil.
func findKind(ks []*kind, group, version, name string) *kind {
	for _, k := range ks {
		if k.name == name && k.group == group && slices.Contains(k.versions, version) {
			return k
		}
	}
	return nil
}

// idOf is the object's name among all kinds.
func (k *kind) idOf(o metav1.Object) ID {
	if k.cluster {
		return ID{Kind: k.name, Name: o.GetName()}
	}
	return ID{Kind: k.name, Namespace: o.GetNamespace(), Name: o.GetName()}
}
