// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"cmp"
	"fmt"
	"maps"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/operator/allowance"
	"github.com/isthmus-mesh/isthmus/internal/operator/apply"
	"github.com/isthmus-mesh/isthmus/internal/operator/revision"
)

// workloadValues are the values that both charts take for a Deployment.
type workloadValues struct {
	Topology    string            `json:"topology"`
	Revision    string            `json:"revision"`
	Namespace   string            `json:"namespace"`
	Image       string            `json:"image"`
	PullPolicy  corev1.PullPolicy `json:"pullPolicy"`
	PullSecrets []string          `json:"pullSecrets"`
	TrustDomain string            `json:"trustDomain"`
	// Account is the uid of the ServiceAccount, so that pods start anew with it.
	Account types.UID `json:"account,omitempty"`
	// Replicas is the annotation of the Deployment, for package apply.
	Replicas   string            `json:"replicas"`
	Scheduling scheduling        `json:"scheduling"`
	Workload   v1alpha1.Workload `json:"workload"`
}

// scheduling is a part of a PodSpec.
type scheduling struct {
	NodeSelector              map[string]string                 `json:"nodeSelector,omitempty"`
	Tolerations               []corev1.Toleration               `json:"tolerations,omitempty"`
	Affinity                  *corev1.Affinity                  `json:"affinity,omitempty"`
	TopologySpreadConstraints []corev1.TopologySpreadConstraint `json:"topologySpreadConstraints,omitempty"`
	PriorityClassName         string                            `json:"priorityClassName,omitempty"`
}

type controlPlaneValues struct {
	workloadValues
	ClusterDomain string `json:"clusterDomain"`
	Operator      string `json:"operator"`
}

type gatewayValues struct {
	workloadValues
	Gateway     string        `json:"gateway"`
	Component   string        `json:"component"`
	Istio       string        `json:"istio"`
	LogLevel    string        `json:"logLevel"`
	ProxyConfig string        `json:"proxyConfig"`
	Service     serviceValues `json:"service"`
}

type serviceValues struct {
	Type                  corev1.ServiceType                  `json:"type"`
	Annotations           map[string]string                   `json:"annotations,omitempty"`
	Ports                 []corev1.ServicePort                `json:"ports"`
	ExternalTrafficPolicy corev1.ServiceExternalTrafficPolicy `json:"externalTrafficPolicy,omitempty"`
	LoadBalancerClass     *string                             `json:"loadBalancerClass,omitempty"`
	IPFamilies            []corev1.IPFamily                   `json:"ipFamilies,omitempty"`
	IPFamilyPolicy        *corev1.IPFamilyPolicy              `json:"ipFamilyPolicy,omitempty"`
}

func (f *Facts) workload(image string, w v1alpha1.Workload, selector map[string]string) workloadValues {
	w.Replicas.Min = max(w.Replicas.Min, 1)
	replicas := strconv.Itoa(int(w.Replicas.Min))
	if w.Replicas.Max != nil && *w.Replicas.Max > w.Replicas.Min {
		replicas += apply.Autoscaled
	}
	w.Resources = requesting(w.Resources)
	spread := w.TopologySpreadConstraints
	if spread == nil {
		spread = []corev1.TopologySpreadConstraint{{
			MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway,
			LabelSelector: &metav1.LabelSelector{MatchLabels: selector},
		}}
	}
	return workloadValues{
		Topology: f.Mesh.Name, Revision: f.revision(), Namespace: f.Mesh.Spec.Namespace,
		Image: f.image(image), PullPolicy: f.Mesh.Spec.Images.PullPolicy, PullSecrets: f.Mesh.Spec.Images.PullSecrets,
		TrustDomain: f.Mesh.Spec.Trust.Domain, Replicas: replicas, Workload: w,
		Scheduling: scheduling{
			NodeSelector: w.NodeSelector, Tolerations: w.Tolerations, Affinity: w.Affinity,
			TopologySpreadConstraints: spread, PriorityClassName: w.PriorityClassName,
		},
	}
}

// cpuRequest is what a pod of the mesh's own asks for where spec does not say.
func cpuRequest() resource.Quantity { return resource.MustParse("100m") }

// requesting adds the CPU request where there is none: pods without one are the
// first to starve on a busy node, and an autoscaler's aim is a percentage of it.
func requesting(r corev1.ResourceRequirements) corev1.ResourceRequirements {
	_, asked := r.Requests[corev1.ResourceCPU]
	_, limited := r.Limits[corev1.ResourceCPU] // is the request too where none is given
	if asked || limited {
		return r
	}
	r.Requests = maps.Clone(r.Requests)
	if r.Requests == nil {
		r.Requests = corev1.ResourceList{}
	}
	r.Requests[corev1.ResourceCPU] = cpuRequest()
	return r
}

func (f *Facts) controlPlaneValues() controlPlaneValues {
	selector := allowance.Part(f.Mesh.Name, f.Mesh.Spec.Namespace, v1alpha1.ComponentControlPlane).Pods.MatchLabels
	v := controlPlaneValues{
		workloadValues: f.workload("isthmusd", f.Mesh.Spec.ControlPlane.Workload, selector),
		ClusterDomain:  f.Settings.ClusterDomain,
		Operator:       f.Settings.User(),
	}
	v.Account = f.account(revision.ControlPlane(f.Mesh.Name), f.Parts.ControlPlane)
	return v
}

// account is the uid of a ServiceAccount. While it is gone its pods stay as they
// are: it comes back with another uid.
func (f *Facts) account(name string, d *appsv1.Deployment) types.UID {
	uid, ok := f.Parts.Accounts[name]
	if !ok && d != nil {
		return types.UID(d.Spec.Template.Annotations[v1alpha1.AnnotationAccount])
	}
	return uid
}

func (f *Facts) ingressValues(g v1alpha1.IngressGateway) gatewayValues {
	v := f.gatewayValues(g.Name, v1alpha1.ComponentIngressGateway, g.Workload)
	v.Istio = "ingressgateway"
	s := g.Service
	v.Service = serviceValues{
		Type: cmp.Or(s.Type, corev1.ServiceTypeLoadBalancer), Annotations: s.Annotations,
		ExternalTrafficPolicy: s.ExternalTrafficPolicy, LoadBalancerClass: s.LoadBalancerClass,
		IPFamilies: s.IPFamilies, IPFamilyPolicy: s.IPFamilyPolicy,
	}
	ports := s.Ports
	if len(ports) == 0 {
		ports = []v1alpha1.GatewayPort{{Name: "http2", Port: 80}, {Name: "https", Port: 443}}
	}
	v.Service.Ports = []corev1.ServicePort{servicePort("status-port", 15021)}
	for _, p := range ports {
		sp := servicePort(p.Name, p.Port)
		sp.Protocol = cmp.Or(p.Protocol, corev1.ProtocolTCP)
		if p.TargetPort != nil {
			sp.TargetPort = *p.TargetPort
		}
		if p.NodePort != nil {
			sp.NodePort = *p.NodePort
		}
		v.Service.Ports = append(v.Service.Ports, sp)
	}
	return v
}

func (f *Facts) egressValues() gatewayValues {
	v := f.gatewayValues(revision.Egress, v1alpha1.ComponentEgressGateway, f.Mesh.Spec.Egress.Gateway.Workload)
	v.Istio = "egressgateway"
	v.Service = serviceValues{
		Type:  corev1.ServiceTypeClusterIP,
		Ports: []corev1.ServicePort{servicePort("tls-egress", allowance.EgressPort)},
	}
	return v
}

func (f *Facts) gatewayValues(name, component string, w v1alpha1.Workload) gatewayValues {
	selector := map[string]string{v1alpha1.LabelTopology: f.Mesh.Name, v1alpha1.LabelGateway: name}
	address := revision.ControlPlaneHost(f.Mesh.Name, f.Mesh.Spec.Namespace) + ":15012"
	v := gatewayValues{
		workloadValues: f.workload("isthmus-proxy", w, selector),
		Gateway:        name, Component: component,
		LogLevel:    cmp.Or(f.Mesh.Spec.Proxy.LogLevel, "warning"),
		ProxyConfig: fmt.Sprintf(`{"discoveryAddress":%q}`, address),
	}
	v.Account = f.account(revision.Gateway(name, f.Mesh.Name), f.Parts.Gateways[name].Deployment)
	return v
}

func servicePort(name string, number int32) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Port: number, TargetPort: intstr.FromInt32(number), Protocol: corev1.ProtocolTCP}
}
