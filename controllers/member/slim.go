// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package member

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SlimPod keeps of a pod what says whether it should carry a proxy, and does, and
// what the guard judges by. It is how pods are cached.
func SlimPod(o any) (any, error) {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return o, nil
	}
	slim := &corev1.Pod{
		TypeMeta: p.TypeMeta,
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.Namespace, Name: p.Name, UID: p.UID, ResourceVersion: p.ResourceVersion,
			Labels: p.Labels, Annotations: p.Annotations, DeletionTimestamp: p.DeletionTimestamp,
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: p.Spec.ServiceAccountName, SecurityContext: p.Spec.SecurityContext,
			HostNetwork: p.Spec.HostNetwork, HostPID: p.Spec.HostPID, HostIPC: p.Spec.HostIPC,
			ShareProcessNamespace: p.Spec.ShareProcessNamespace, OS: p.Spec.OS, NodeSelector: p.Spec.NodeSelector,
			InitContainers: slimContainers(p.Spec.InitContainers), Containers: slimContainers(p.Spec.Containers),
		},
		Status: corev1.PodStatus{Phase: p.Status.Phase, PodIP: p.Status.PodIP},
	}
	for _, v := range p.Spec.Volumes {
		if v.HostPath != nil {
			slim.Spec.Volumes = append(slim.Spec.Volumes, v)
		}
	}
	return slim, nil
}

func slimContainers(in []corev1.Container) []corev1.Container {
	var out []corev1.Container
	for _, c := range in {
		s := corev1.Container{Name: c.Name, SecurityContext: c.SecurityContext}
		for _, m := range c.VolumeMounts {
			s.VolumeMounts = append(s.VolumeMounts, corev1.VolumeMount{Name: m.Name})
		}
		for _, p := range c.Ports {
			if p.HostPort != 0 {
				s.Ports = append(s.Ports, corev1.ContainerPort{HostPort: p.HostPort})
			}
		}
		out = append(out, s)
	}
	return out
}
