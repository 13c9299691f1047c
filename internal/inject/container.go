// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Ports of the proxy that Kubernetes is told of.
const (
	healthPort  = 15021
	metricsPort = 15090
)

// Names of the volumes that injection adds.
const (
	volumeWorkload    = "workload-socket"
	volumeCredential  = "credential-socket"
	volumeEnvoy       = "istio-envoy"
	volumePodInfo     = "istio-podinfo"
	volumeToken       = "istio-token"
	volumeRoot        = "istiod-ca-cert"
	tokenLifetime     = int64(12 * 60 * 60)
	tokenAudience     = "istio-ca"
	rootConfigMapBase = "isthmus-ca-root-"
)

// proxyContainer is what sidecar and gateway have in common.
func (r *renderer) proxyContainer(role string, env []corev1.EnvVar) corev1.Container {
	return corev1.Container{
		Name:            ProxyContainer,
		Image:           r.set.image,
		ImagePullPolicy: r.in.cfg.Injection.PullPolicy,
		Args:            r.in.proxyArgs(role),
		Env:             env,
		Ports:           []corev1.ContainerPort{{Name: "http-envoy-prom", ContainerPort: metricsPort, Protocol: corev1.ProtocolTCP}},
		Resources:       r.set.resources,
		SecurityContext: proxySecurity(),
		VolumeMounts:    slices.Concat(mounts(), r.set.extra.mounts),
	}
}

// proxyArgs names the cluster's domain only where it is not the usual one.
func (in *Injector) proxyArgs(role string) []string {
	args := []string{"proxy", role}
	if d := in.cfg.Mesh.ClusterDomain; d != "cluster.local" {
		args = append(args, "--cluster-domain", d)
	}
	return args
}

func (r *renderer) initContainer() corev1.Container {
	return corev1.Container{
		Name:            InitContainer,
		Image:           r.set.image,
		ImagePullPolicy: r.in.cfg.Injection.PullPolicy,
		Args:            r.in.interceptArgs(r.set, r.req),
		Resources:       *r.set.resources.DeepCopy(),
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: new(false),
			Privileged:               new(false),
			ReadOnlyRootFilesystem:   new(true),
			RunAsNonRoot:             new(false),
			RunAsUser:                new(int64(0)),
			RunAsGroup:               new(int64(0)),
			Capabilities: &corev1.Capabilities{
				Add: []corev1.Capability{"NET_ADMIN"}, Drop: []corev1.Capability{"ALL"},
			},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
	}
}

func proxySecurity() *corev1.SecurityContext {
	return &corev1.SecurityContext{
		AllowPrivilegeEscalation: new(false),
		Privileged:               new(false),
		ReadOnlyRootFilesystem:   new(true),
		RunAsNonRoot:             new(true),
		RunAsUser:                new(int64(UID)),
		RunAsGroup:               new(int64(GID)),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

func readyProbe(period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{
			HTTPGet: &corev1.HTTPGetAction{Path: "/healthz/ready", Port: intstr.FromInt32(healthPort)},
		},
		PeriodSeconds:    period,
		TimeoutSeconds:   3,
		FailureThreshold: failures,
	}
}

func mounts() []corev1.VolumeMount {
	return []corev1.VolumeMount{
		{Name: volumeWorkload, MountPath: "/var/run/secrets/workload-spiffe-uds"},
		{Name: volumeCredential, MountPath: "/var/run/secrets/credential-uds"},
		{Name: volumeRoot, MountPath: "/var/run/secrets/istio", ReadOnly: true},
		{Name: volumeToken, MountPath: "/var/run/secrets/tokens", ReadOnly: true},
		{Name: volumeEnvoy, MountPath: "/etc/istio/proxy"},
		{Name: volumePodInfo, MountPath: "/etc/istio/pod", ReadOnly: true},
	}
}

func (in *Injector) volumes() []corev1.Volume {
	return []corev1.Volume{
		emptyDir(volumeWorkload, corev1.StorageMediumDefault),
		emptyDir(volumeCredential, corev1.StorageMediumDefault),
		emptyDir(volumeEnvoy, corev1.StorageMediumMemory),
		{Name: volumePodInfo, VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
			Items: []corev1.DownwardAPIVolumeFile{
				{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
				{Path: "annotations", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations"}},
			},
		}}},
		{Name: volumeToken, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
				Path: "istio-token", Audience: tokenAudience, ExpirationSeconds: new(tokenLifetime),
			}}},
		}}},
		{Name: volumeRoot, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: rootConfigMapBase + in.cfg.Name},
		}}},
	}
}

func emptyDir(name string, medium corev1.StorageMedium) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: medium}}}
}
