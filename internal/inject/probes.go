// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// statusPort is where the agent answers probes and metrics.
const statusPort = 15020

// prober is the agent's view of a probe that was rewritten: what it is to do when
// the kubelet asks. Same form as Istio's ISTIO_KUBE_APP_PROBERS.
type prober struct {
	HTTPGet        *corev1.HTTPGetAction   `json:"httpGet,omitempty"`
	TCPSocket      *corev1.TCPSocketAction `json:"tcpSocket,omitempty"`
	GRPC           *corev1.GRPCAction      `json:"grpc,omitempty"`
	TimeoutSeconds int32                   `json:"timeoutSeconds,omitempty"`
}

// rewriteProbes sends the kubelet's probes and lifecycle calls to the agent, which
// reaches the application from inside the pod, where mutual TLS is not asked for.
// It returns the value of ISTIO_KUBE_APP_PROBERS, or "" if there was none to
// rewrite. Probes of other hosts and of ports that the container does not name
// stay as they are.
func rewriteProbes(spec *corev1.PodSpec) (string, error) {
	probers := map[string]prober{}
	for i := range spec.Containers {
		rewriteContainer(&spec.Containers[i], probers)
	}
	for i := range spec.InitContainers {
		if isNativeSidecar(&spec.InitContainers[i]) {
			rewriteContainer(&spec.InitContainers[i], probers)
		}
	}
	if len(probers) == 0 {
		return "", nil
	}
	b, err := json.Marshal(probers)
	return string(b), err
}

func isNativeSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func rewriteContainer(c *corev1.Container, probers map[string]prober) {
	if c.Name == ProxyContainer {
		return
	}
	health := "/app-health/" + c.Name
	rewriteProbe(c, c.LivenessProbe, health+"/livez", probers)
	rewriteProbe(c, c.ReadinessProbe, health+"/readyz", probers)
	rewriteProbe(c, c.StartupProbe, health+"/startupz", probers)
	if c.Lifecycle == nil {
		return
	}
	lifecycle := "/app-lifecycle/" + c.Name
	rewriteHook(c, c.Lifecycle.PostStart, lifecycle+"/poststartz", probers)
	rewriteHook(c, c.Lifecycle.PreStop, lifecycle+"/prestopz", probers)
}

func rewriteProbe(c *corev1.Container, p *corev1.Probe, path string, probers map[string]prober) {
	if p == nil {
		return
	}
	out := prober{TimeoutSeconds: p.TimeoutSeconds}
	switch {
	case p.HTTPGet != nil:
		if out.HTTPGet = resolveHTTP(c, p.HTTPGet); out.HTTPGet == nil {
			return
		}
	case p.TCPSocket != nil:
		if out.TCPSocket = resolveTCP(c, p.TCPSocket); out.TCPSocket == nil {
			return
		}
	case p.GRPC != nil:
		out.GRPC = p.GRPC
	default:
		return
	}
	probers[path] = out
	p.ProbeHandler = corev1.ProbeHandler{HTTPGet: agentGet(path)}
}

func rewriteHook(c *corev1.Container, h *corev1.LifecycleHandler, path string, probers map[string]prober) {
	if h == nil || h.HTTPGet == nil {
		return
	}
	get := resolveHTTP(c, h.HTTPGet)
	if get == nil {
		return
	}
	probers[path] = prober{HTTPGet: get}
	h.HTTPGet = agentGet(path)
}

func agentGet(path string) *corev1.HTTPGetAction {
	return &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(statusPort)}
}

// resolveHTTP returns the action with a numeric port, or nil if the agent cannot
// stand in for the kubelet.
func resolveHTTP(c *corev1.Container, a *corev1.HTTPGetAction) *corev1.HTTPGetAction {
	port, ok := resolvePort(c, a.Port)
	if !ok || a.Host != "" {
		return nil
	}
	out := a.DeepCopy()
	out.Port = port
	return out
}

func resolveTCP(c *corev1.Container, a *corev1.TCPSocketAction) *corev1.TCPSocketAction {
	port, ok := resolvePort(c, a.Port)
	if !ok || a.Host != "" {
		return nil
	}
	return &corev1.TCPSocketAction{Port: port}
}

func resolvePort(c *corev1.Container, p intstr.IntOrString) (intstr.IntOrString, bool) {
	if p.Type == intstr.Int {
		return p, true
	}
	for _, cp := range c.Ports {
		if cp.Name == p.StrVal {
			return intstr.FromInt32(cp.ContainerPort), true
		}
	}
	return p, false
}
