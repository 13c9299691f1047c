// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/operator/allowance"
	"github.com/isthmus-mesh/isthmus/internal/operator/distribution"
	"github.com/isthmus-mesh/isthmus/internal/operator/transition"
	mesh "github.com/isthmus-mesh/isthmus/internal/topology"
)

// Settings are the operator's own, the same for every topology.
type Settings struct {
	// Version that the operator's charts install.
	Version string
	// Registry of images where spec names none.
	Registry string
	// ClusterDomain is the DNS suffix of Services.
	ClusterDomain string
	// Namespace and ServiceAccount that the operator runs as.
	Namespace, ServiceAccount string
}

// User is who the operator is to the API server.
func (s Settings) User() string {
	return "system:serviceaccount:" + s.Namespace + ":" + s.ServiceAccount
}

// Facts are everything that a decision about one topology depends on, gathered at
// one time.
type Facts struct {
	Settings Settings
	Mesh     *v1alpha1.MeshTopology
	// Others are all other topologies.
	Others []v1alpha1.MeshTopology
	// State and Published are what ConfigMap isthmus-<name> holds; zero without one.
	State     transition.State
	Published mesh.Config
	Members   Members
	Parts     Parts
	Cluster   Cluster
	Trust     Trust
	// Missing names CRDs that isthmusd needs and the cluster lacks.
	Missing      []string
	Distribution Distribution
	Now          time.Time
}

// Members are the namespaces in the mesh.
type Members struct {
	Namespaces []corev1.Namespace
	// Objects of this mesh, also in namespaces that are no longer members.
	Objects []v1alpha1.MeshMember
	// Policies counts the mesh's NetworkPolicies that stand, those around its own
	// parts too.
	Policies int
	// Contested namespaces are selected here and belong to another mesh.
	Contested []string
	// Marked are the member selectors, by index, that cover a namespace which is
	// no member.
	Marked []int
	// Problem is why members could not be resolved.
	Problem string
}

// Parts are what the topology runs. A nil object is not there.
type Parts struct {
	// Namespace of the control plane; nil if there is none yet.
	Namespace    *corev1.Namespace
	ControlPlane *appsv1.Deployment
	// Service of the control plane.
	Service  *corev1.Service
	Gateways map[string]Gateway
	// Accounts are the uids of ServiceAccounts by name.
	Accounts map[string]types.UID
	// Injector says what is known of the injection webhook.
	Injector Injector
}

// Gateway is one gateway by name.
type Gateway struct {
	Deployment *appsv1.Deployment
	Service    *corev1.Service
}

// Injector is the injection webhook.
type Injector struct {
	// Present when its configuration is there, with the present root certificate.
	Present, Trusted bool
}

// Cluster is what others run.
type Cluster struct {
	DNS, NodeDNS, APIServer allowance.Service
}

// Trust is the CA as its ConfigMap tells; zero without one.
type Trust struct {
	Root        string
	Fingerprint string
	NotAfter    time.Time
	// Reason and Problem say why the CA cannot be used now; empty if it can.
	Reason, Problem string
}

// Distribution is how far the published configuration got.
type Distribution struct {
	// Asked is false when there was nothing to ask for.
	Asked    bool
	Expected []distribution.Proxy
	Lagging  []distribution.Proxy
	Rejected []distribution.Proxy
	// Problem is why the question was not answered.
	Problem string
}

// Acknowledged tells whether every expected proxy follows the configuration.
func (d Distribution) Acknowledged() bool {
	return d.Asked && d.Problem == "" && len(d.Lagging) == 0
}
