// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// owner is the workload that a pod belongs to, as Istio names it in telemetry.
type owner struct {
	apiVersion, kind, name string
}

// cronJobRun matches the Jobs of a CronJob: its name and the scheduled minute.
var cronJobRun = regexp.MustCompile(`^(.+)-\d{8,10}$`)

// ownerOf derives the workload from the pod's controller, without asking anybody:
// ReplicaSet -> Deployment or Rollout by the template hash, Job -> CronJob by the
// scheduled minute. A pod with no controller is its own workload.
func ownerOf(pod *corev1.Pod) owner {
	ref := metav1.GetControllerOfNoCopy(pod)
	if ref == nil {
		return owner{apiVersion: "v1", kind: "Pod", name: or(pod.Name, strings.TrimSuffix(pod.GenerateName, "-"))}
	}
	o := owner{apiVersion: ref.APIVersion, kind: ref.Kind, name: ref.Name}
	switch ref.Kind {
	case "ReplicaSet":
		return replicaSetOwner(pod, o)
	case "Job":
		if m := cronJobRun.FindStringSubmatch(ref.Name); m != nil {
			o.kind, o.name = "CronJob", m[1]
		}
	case "ReplicationController":
		if dc := pod.Labels["deploymentconfig"]; dc != "" {
			return owner{apiVersion: "apps.openshift.io/v1", kind: "DeploymentConfig", name: dc}
		}
	}
	return o
}

func replicaSetOwner(pod *corev1.Pod, o owner) owner {
	if h := pod.Labels["rollouts-pod-template-hash"]; h != "" && strings.HasSuffix(o.name, "-"+h) {
		return owner{apiVersion: "argoproj.io/v1alpha1", kind: "Rollout", name: strings.TrimSuffix(o.name, "-"+h)}
	}
	if h := pod.Labels["pod-template-hash"]; h != "" && strings.HasSuffix(o.name, "-"+h) {
		return owner{apiVersion: o.apiVersion, kind: "Deployment", name: strings.TrimSuffix(o.name, "-"+h)}
	}
	return o
}

// uri is the value of ISTIO_META_OWNER.
func (o owner) uri(namespace string) string {
	return "kubernetes://apis/" + o.apiVersion + "/namespaces/" + namespace + "/" + strings.ToLower(o.kind) + "s/" + o.name
}
