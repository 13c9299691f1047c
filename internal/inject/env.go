// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// discoveryVariable becomes node metadata, which isthmusd reads.
const discoveryVariable = "ISTIO_META_ISTHMUS_DISCOVERY"

// environment is the proxy's: where it runs, whom it belongs to, whom it asks. It
// also rewrites what the application's containers and annotations say of probes
// and metrics, for the agent must know what they said.
func (r *renderer) environment() ([]corev1.EnvVar, error) {
	env := slices.Concat(fromPod(), r.identity())
	config := r.proxyConfig()
	text, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("inject: marshal proxy config: %w", err)
	}
	env = append(env, value("PROXY_CONFIG", string(text)))
	app, err := r.application()
	if err != nil {
		return nil, err
	}
	env = append(env, app...)
	if r.set.logLevel != "" {
		env = append(env, value("PROXY_LOG_LEVEL", r.set.logLevel))
	}
	if r.set.components != "" {
		env = append(env, value("COMPONENT_LOG_LEVEL", r.set.components))
	}
	if _, ok := r.set.resources.Limits[corev1.ResourceCPU]; ok {
		env = append(env, corev1.EnvVar{Name: "ISTIO_CPU_LIMIT", ValueFrom: &corev1.EnvVarSource{
			ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"},
		}})
	}
	if r.set.gateway {
		return appendMetadata(env, config), nil
	}
	// The pod's own word, then its ProxyConfig's, then the mesh's.
	env = appendMetadata(appendSet(env, discoveryVariable, r.set.discovery), config)
	return appendDefault(env, discoveryVariable, r.in.cfg.Injection.Discovery), nil
}

func fromPod() []corev1.EnvVar {
	return []corev1.EnvVar{
		field("POD_NAME", "metadata.name"),
		field("POD_NAMESPACE", "metadata.namespace"),
		field("INSTANCE_IP", "status.podIP"),
		field("INSTANCE_IPS", "status.podIPs"),
		field("HOST_IP", "status.hostIP"),
		field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
		field("ISTIO_META_NODE_NAME", "spec.nodeName"),
	}
}

func (r *renderer) identity() []corev1.EnvVar {
	m := r.in.cfg.Mesh
	env := []corev1.EnvVar{
		value("CA_ADDR", r.in.discoveryAddress()),
		value("TRUST_DOMAIN", m.TrustDomain),
		value("ISTIO_META_CLUSTER_ID", or(r.req.Cluster, m.ClusterID)),
		value("ISTIO_META_MESH_ID", m.MeshID),
		value("ISTIO_META_WORKLOAD_NAME", r.owner.name),
		value("ISTIO_META_OWNER", r.owner.uri(r.req.Namespace.Name)),
	}
	if n := or(r.req.Network, m.Network); n != "" {
		env = append(env, value("ISTIO_META_NETWORK", n))
	}
	if !r.set.gateway {
		env = append(env, value("ISTIO_META_INTERCEPTION_MODE", r.set.mode))
	}
	return env
}

// discoveryAddress is the Service that serves discovery and certificates.
func (in *Injector) discoveryAddress() string {
	return "isthmusd-" + in.cfg.Name + "." + in.cfg.Namespace + ".svc:15012"
}

// proxyConfig lays the pod's ProxyConfig over the mesh's. The discovery address is
// ours in any case: a pod of this topology talks to this topology.
func (r *renderer) proxyConfig() map[string]any {
	out := maps.Clone(r.in.defaults)
	for k, v := range r.set.proxyConfig {
		below, okBelow := out[k].(map[string]any)
		above, okAbove := v.(map[string]any)
		if okBelow && okAbove {
			merged := maps.Clone(below)
			maps.Copy(merged, above)
			v = merged
		}
		out[k] = v
	}
	out["discoveryAddress"] = r.in.discoveryAddress()
	return out
}

// application tells the agent of the application's containers, probes and metrics,
// and points kubelet and Prometheus to the agent.
func (r *renderer) application() ([]corev1.EnvVar, error) {
	names, ports := []string{}, []corev1.ContainerPort{}
	for i := range r.pod.Spec.Containers {
		c := &r.pod.Spec.Containers[i]
		if c.Name != ProxyContainer || r.set.gateway {
			names = append(names, c.Name)
			ports = append(ports, c.Ports...)
		}
	}
	text, err := json.Marshal(ports)
	if err != nil {
		return nil, fmt.Errorf("inject: marshal ports: %w", err)
	}
	env := []corev1.EnvVar{
		value("ISTIO_META_APP_CONTAINERS", strings.Join(names, ",")),
		value("ISTIO_META_POD_PORTS", string(text)),
	}
	if !r.set.keepProbes {
		probers, err := rewriteProbes(&r.pod.Spec)
		if err != nil {
			return nil, fmt.Errorf("inject: marshal probes: %w", err)
		}
		env = appendSet(env, "ISTIO_KUBE_APP_PROBERS", probers)
	}
	if r.pod.Annotations == nil {
		r.pod.Annotations = map[string]string{}
	}
	if !r.set.keepMetrics {
		scraped, err := mergeMetrics(r.pod.Annotations)
		if err != nil {
			return nil, fmt.Errorf("inject: marshal metrics: %w", err)
		}
		env = appendSet(env, "ISTIO_PROMETHEUS_ANNOTATIONS", scraped)
	}
	return env, nil
}

// appendMetadata adds ProxyConfig's proxyMetadata, which Istio gives to the proxy
// as variables. Those that injection sets itself stay as they are.
func appendMetadata(env []corev1.EnvVar, config map[string]any) []corev1.EnvVar {
	metadata, _ := config["proxyMetadata"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(metadata)) {
		ours := slices.ContainsFunc(env, func(e corev1.EnvVar) bool { return e.Name == name })
		if v, ok := metadata[name].(string); ok && !ours {
			env = append(env, value(name, v))
		}
	}
	return env
}

// appendDefault adds a variable that is not there.
func appendDefault(env []corev1.EnvVar, name, v string) []corev1.EnvVar {
	if slices.ContainsFunc(env, func(e corev1.EnvVar) bool { return e.Name == name }) {
		return env
	}
	return appendSet(env, name, v)
}

func appendSet(env []corev1.EnvVar, name, v string) []corev1.EnvVar {
	if v == "" {
		return env
	}
	return append(env, value(name, v))
}

func value(name, v string) corev1.EnvVar { return corev1.EnvVar{Name: name, Value: v} }

func field(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{FieldPath: path},
	}}
}
