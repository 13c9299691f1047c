// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Workload shapes a Deployment that the operator runs.
type Workload struct {
	// Replicas of the Deployment.
	// +optional
	// +kubebuilder:default={}
	Replicas Replicas `json:"replicas,omitempty"`
	// Resources of the main container.
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitempty"`
	// NodeSelector of the pods.
	// +optional
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// Tolerations of the pods.
	// +optional
	// +listType=atomic
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`
	// Affinity of the pods.
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`
	// TopologySpreadConstraints of the pods; absent means an even spread over nodes,
	// preferred.
	// +optional
	// +listType=atomic
	TopologySpreadConstraints []corev1.TopologySpreadConstraint `json:"topologySpreadConstraints,omitempty"`
	// PriorityClassName of the pods.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	PriorityClassName string `json:"priorityClassName,omitempty"`
	// PodLabels are added to the pods.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('isthmus.dev/') && !k.startsWith('app.kubernetes.io/') && !k.startsWith('service.istio.io/') && !(k in ['app', 'istio', 'istio.io/rev', 'sidecar.istio.io/inject']))",message="labels app, istio, istio.io/rev, sidecar.istio.io/inject and those under isthmus.dev/, app.kubernetes.io/ and service.istio.io/ are the operator's own"
	PodLabels map[string]string `json:"podLabels,omitempty"`
	// PodAnnotations are added to the pods.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('prometheus.io/') && !k.startsWith('isthmus.dev/'))",message="annotations under prometheus.io/ and isthmus.dev/ are the operator's own"
	PodAnnotations map[string]string `json:"podAnnotations,omitempty"`
	// Env is added to the main container.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule="self.all(e, !(e.name in ['POD_NAME', 'POD_NAMESPACE', 'INSTANCE_IP', 'INSTANCE_IPS', 'HOST_IP', 'SERVICE_ACCOUNT', 'CA_ADDR', 'TRUST_DOMAIN', 'PROXY_CONFIG', 'PROXY_LOG_LEVEL', 'ISTIO_CPU_LIMIT', 'ISTIO_META_NODE_NAME', 'ISTIO_META_CLUSTER_ID', 'ISTIO_META_MESH_ID', 'ISTIO_META_WORKLOAD_NAME', 'ISTIO_META_OWNER']))",message="the variable is one that the operator sets itself: POD_*, INSTANCE_*, HOST_IP, SERVICE_ACCOUNT, CA_ADDR, TRUST_DOMAIN, PROXY_*, ISTIO_*"
	Env []corev1.EnvVar `json:"env,omitempty"`
}

// Replicas of a Deployment. With max above min an autoscaler moves between them;
// otherwise min is written once and then left to whoever scales it.
//
// +kubebuilder:validation:XValidation:rule="!has(self.max) || self.max >= self.min",message="replicas.max is below replicas.min"
type Replicas struct {
	// Min is the number of replicas without an autoscaler, and its lower end with one.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	Min int32 `json:"min,omitempty"`
	// Max is the autoscaler's upper end; absent means no autoscaler.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	Max *int32 `json:"max,omitempty"`
	// TargetCPU is the autoscaler's aim: percent of the requested CPU in use.
	// +optional
	// +kubebuilder:default=80
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	TargetCPU int32 `json:"targetCPU,omitempty"`
}

// Ingress is the way into the mesh.
type Ingress struct {
	// Gateways, by name. The default is one, named ingress; an empty list means none.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:default={{name: ingress}}
	// +kubebuilder:validation:MaxItems=16
	Gateways []IngressGateway `json:"gateways"`
}

// IngressGateway is one Deployment of proxies with a Service before it. Istio
// Gateways select its pods by istio=ingressgateway, or by
// isthmus.dev/gateway=<name>.
type IngressGateway struct {
	// Name of the gateway; Deployment, Service and ServiceAccount are <name>-<topology>.
	// +required
	// +kubebuilder:validation:MaxLength=20
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="a gateway's name is a DNS label of at most 20 characters that begins with a letter"
	// +kubebuilder:validation:XValidation:rule="self != 'egress' && self != 'isthmusd'",message="the names egress and isthmusd are taken by the operator's own parts"
	Name string `json:"name"`
	// Workload shapes its Deployment.
	// +optional
	Workload Workload `json:"workload,omitempty"`
	// Service shapes its Service.
	// +optional
	// +kubebuilder:default={}
	Service GatewayService `json:"service,omitempty"`
}

// GatewayService shapes the Service before an ingress gateway.
//
// +kubebuilder:validation:XValidation:rule="self.type == 'LoadBalancer' || !has(self.loadBalancerClass)",message="loadBalancerClass needs type LoadBalancer"
// +kubebuilder:validation:XValidation:rule="self.type != 'ClusterIP' || !has(self.externalTrafficPolicy)",message="externalTrafficPolicy needs type LoadBalancer or NodePort"
// +kubebuilder:validation:XValidation:rule="self.type != 'ClusterIP' || !has(self.ports) || self.ports.all(p, !has(p.nodePort))",message="nodePort needs type LoadBalancer or NodePort"
// +kubebuilder:validation:XValidation:rule="self.type != 'LoadBalancer' || oldSelf.type != 'LoadBalancer' || (has(self.loadBalancerClass) == has(oldSelf.loadBalancerClass) && (!has(self.loadBalancerClass) || self.loadBalancerClass == oldSelf.loadBalancerClass))",message="Kubernetes does not let a load balancer have another class: name another gateway"
type GatewayService struct {
	// Type of the Service.
	// +optional
	// +kubebuilder:default=LoadBalancer
	// +kubebuilder:validation:Enum=LoadBalancer;NodePort;ClusterIP
	Type corev1.ServiceType `json:"type,omitempty"`
	// Annotations of the Service, for the load balancer's provider.
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
	// Ports of the Service; absent means http2 80 and https 443. The health port
	// 15021 is always added.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule="self.all(p, self.exists_one(q, p.port == q.port && p.protocol == q.protocol))",message="two ports have the same number"
	Ports []GatewayPort `json:"ports,omitempty"`
	// ExternalTrafficPolicy of the Service; Local keeps clients' addresses.
	// +optional
	// +kubebuilder:validation:Enum=Cluster;Local
	ExternalTrafficPolicy corev1.ServiceExternalTrafficPolicy `json:"externalTrafficPolicy,omitempty"`
	// LoadBalancerClass of the Service; stays as it is.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	LoadBalancerClass *string `json:"loadBalancerClass,omitempty"`
	// IPFamilies of the Service.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2
	IPFamilies []corev1.IPFamily `json:"ipFamilies,omitempty"`
	// IPFamilyPolicy of the Service.
	// +optional
	// +kubebuilder:validation:Enum=SingleStack;PreferDualStack;RequireDualStack
	IPFamilyPolicy *corev1.IPFamilyPolicy `json:"ipFamilyPolicy,omitempty"`
}

// GatewayPort is a port of a gateway's Service.
type GatewayPort struct {
	// Name of the port; its prefix names the protocol, as on any Service of a mesh.
	// +required
	// +kubebuilder:validation:MaxLength=15
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="a port's name is a DNS label of at most 15 characters that begins with a letter"
	// +kubebuilder:validation:XValidation:rule="self != 'status-port'",message="the port status-port is always there"
	Name string `json:"name"`
	// Port of the Service.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	// +kubebuilder:validation:XValidation:rule="self < 15000 || self > 15099",message="ports 15000 to 15099 are the proxy's own"
	Port int32 `json:"port"`
	// TargetPort on the pods; absent means the same as port.
	// +optional
	// +kubebuilder:validation:XIntOrString
	TargetPort *intstr.IntOrString `json:"targetPort,omitempty"`
	// NodePort, if it must be a certain one.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	NodePort *int32 `json:"nodePort,omitempty"`
	// Protocol of the port.
	// +optional
	// +kubebuilder:default=TCP
	// +kubebuilder:validation:Enum=TCP;UDP
	Protocol corev1.Protocol `json:"protocol,omitempty"`
}
