// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// renderer changes one copy of a pod. The request's pod is left as it was.
type renderer struct {
	in    *Injector
	req   Request
	pod   *corev1.Pod
	set   *settings
	owner owner
}

// render is the order of changes: what reads the application's containers comes
// before the proxy is among them.
func (r *renderer) render() error {
	if err := r.checkNames(); err != nil {
		return err
	}
	env, err := r.environment()
	if err != nil {
		return err
	}
	if r.set.gateway {
		err = r.placeGateway(env)
	} else {
		err = r.placeSidecar(env)
	}
	if err != nil {
		return err
	}
	r.addVolumes()
	r.addPullSecrets()
	r.label()
	return r.recordStatus()
}

// checkNames refuses a pod whose own volumes or containers would collide with ours.
func (r *renderer) checkNames() error {
	var bad []FieldError
	if containerNamed(r.pod.Spec.InitContainers, InitContainer) >= 0 || containerNamed(r.pod.Spec.Containers, InitContainer) >= 0 {
		bad = append(bad, FieldError{
			Field: "spec.initContainers", Value: InitContainer, Reason: "the name is reserved for the container that injection adds: use another",
		})
	}
	ours := map[string]bool{}
	for _, v := range r.in.volumes() {
		ours[v.Name] = true
	}
	for i, v := range r.pod.Spec.Volumes {
		if ours[v.Name] {
			bad = append(bad, FieldError{
				Field: fmt.Sprintf("spec.volumes[%d].name", i), Value: v.Name, Reason: "the name is reserved for a volume that injection adds: use another",
			})
		}
	}
	if r.set.gateway && containerNamed(r.pod.Spec.Containers, ProxyContainer) < 0 {
		bad = append(bad, FieldError{
			Field: "spec.containers", Value: "", Reason: "the gateway template needs a container named istio-proxy with image auto",
		})
	}
	return refused(bad)
}

// placeSidecar puts the proxy before the application's init containers, so that
// these have the mesh too: a native sidecar is ready before the next one starts.
func (r *renderer) placeSidecar(env []corev1.EnvVar) error {
	proxy := r.proxyContainer("sidecar", env)
	proxy.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
	proxy.StartupProbe = readyProbe(1, 600)
	proxy.ReadinessProbe = r.set.ready

	spec := &r.pod.Spec
	for _, list := range []*[]corev1.Container{&spec.Containers, &spec.InitContainers} {
		i := containerNamed(*list, ProxyContainer)
		if i < 0 {
			continue
		}
		merged, err := customize(proxy, (*list)[i])
		if err != nil {
			return err
		}
		proxy = merged
		*list = slices.Delete(*list, i, i+1)
	}
	if len(spec.Containers) == 0 {
		return refused([]FieldError{{
			Field: "spec.containers", Value: ProxyContainer, Reason: "must have a container besides the proxy, or the gateway template",
		}})
	}
	first := []corev1.Container{proxy}
	if r.set.mode != interceptNone {
		first = []corev1.Container{r.initContainer(), proxy}
	}
	spec.InitContainers = append(first, spec.InitContainers...)
	return nil
}

// placeGateway fills in the container that the pod declares for it; what the pod
// says there goes before the template, except the image auto.
func (r *renderer) placeGateway(env []corev1.EnvVar) error {
	proxy := r.proxyContainer("router", env)
	proxy.ReadinessProbe = r.set.ready
	proxy.StartupProbe = readyProbe(1, 600)
	i := containerNamed(r.pod.Spec.Containers, ProxyContainer)
	merged, err := customize(proxy, r.pod.Spec.Containers[i])
	if err != nil {
		return err
	}
	r.pod.Spec.Containers[i] = merged
	return nil
}

// customize lays a user's container over the template, by Kubernetes' strategic
// merge: lists with keys (env, ports, mounts) are joined, scalars replaced.
func customize(template, user corev1.Container) (corev1.Container, error) {
	if user.Image == "auto" {
		user.Image = ""
	}
	base, err := json.Marshal(template)
	if err != nil {
		return template, fmt.Errorf("inject: marshal proxy template: %w", err)
	}
	over, err := json.Marshal(user)
	if err != nil {
		return template, fmt.Errorf("inject: marshal proxy customization: %w", err)
	}
	merged, err := strategicpatch.StrategicMergePatch(base, over, corev1.Container{})
	if err != nil {
		return template, refused([]FieldError{{
			Field: "spec.containers[" + ProxyContainer + "]", Reason: "cannot be laid over the template: " + err.Error(),
		}})
	}
	var out corev1.Container
	if err := json.Unmarshal(merged, &out); err != nil {
		return template, fmt.Errorf("inject: read merged proxy container: %w", err)
	}
	return out, nil
}

func (r *renderer) addVolumes() {
	have := map[string]bool{}
	for _, v := range r.pod.Spec.Volumes {
		have[v.Name] = true
	}
	for _, v := range slices.Concat(r.in.volumes(), r.set.extra.volumes) {
		if !have[v.Name] {
			r.pod.Spec.Volumes = append(r.pod.Spec.Volumes, v)
			have[v.Name] = true
		}
	}
}

func (r *renderer) addPullSecrets() {
	for _, name := range r.in.cfg.Injection.PullSecrets {
		ref := corev1.LocalObjectReference{Name: name}
		if !slices.Contains(r.pod.Spec.ImagePullSecrets, ref) {
			r.pod.Spec.ImagePullSecrets = append(r.pod.Spec.ImagePullSecrets, ref)
		}
	}
}

// injectionStatus is the value of sidecar.istio.io/status, in Istio's form.
type injectionStatus struct {
	InitContainers   []string `json:"initContainers"`
	Containers       []string `json:"containers"`
	Volumes          []string `json:"volumes"`
	ImagePullSecrets []string `json:"imagePullSecrets"`
	Revision         string   `json:"revision"`
}

func (r *renderer) recordStatus() error {
	st := injectionStatus{Revision: r.in.cfg.Revision, ImagePullSecrets: r.in.cfg.Injection.PullSecrets}
	switch {
	case r.set.gateway:
		st.Containers = []string{ProxyContainer}
	case r.set.mode == interceptNone:
		st.InitContainers = []string{ProxyContainer}
	default:
		st.InitContainers = []string{InitContainer, ProxyContainer}
	}
	for _, v := range r.in.volumes() {
		st.Volumes = append(st.Volumes, v.Name)
	}
	b, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("inject: marshal status: %w", err)
	}
	r.pod.Annotations[AnnotationStatus] = string(b)
	return nil
}
