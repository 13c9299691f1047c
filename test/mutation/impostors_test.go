// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package mutation

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// impostors are pods with a container that bears the proxy's name and differs from
// it in one thing.
func impostors(t *testing.T) map[string]asked {
	t.Helper()
	out := map[string]asked{}
	for base, of := range map[string]func(*corev1.Pod) *corev1.Container{
		"the interception": func(p *corev1.Pod) *corev1.Container { return &p.Spec.InitContainers[0] },
		"the sidecar":      func(p *corev1.Pod) *corev1.Container { return &p.Spec.InitContainers[1] },
		"the gateway":      func(p *corev1.Pod) *corev1.Container { return &p.Spec.Containers[0] },
	} {
		from := "an injected pod"
		if base == "the gateway" {
			from = "a gateway pod"
		}
		for name, f := range differences {
			p := pods(t)[from].Pod
			f.do(of(p))
			out[base+": "+name] = asked{admission{resource: "pods", operation: create, object: content(t, p)}, podGuard, "Proxy: " + f.want + " of " + of(p).Name}
		}
	}
	for name, do := range map[string]func(*corev1.Volume){
		"istio-envoy":       func(v *corev1.Volume) { v.EmptyDir, v.Secret = nil, &corev1.SecretVolumeSource{SecretName: "x"} },
		"workload-socket":   func(v *corev1.Volume) { v.EmptyDir, v.Secret = nil, &corev1.SecretVolumeSource{SecretName: "x"} },
		"credential-socket": func(v *corev1.Volume) { v.EmptyDir, v.Secret = nil, &corev1.SecretVolumeSource{SecretName: "x"} },
		"istio-podinfo":     func(v *corev1.Volume) { v.DownwardAPI, v.EmptyDir = nil, &corev1.EmptyDirVolumeSource{} },
		"istio-token": func(v *corev1.Volume) {
			v.Projected.Sources[0].ServiceAccountToken.Audience = "other"
		},
		"istiod-ca-cert": func(v *corev1.Volume) { v.ConfigMap.Items = []corev1.KeyToPath{{Key: "mine", Path: "root-cert.pem"}} },
	} {
		p := pods(t)["an injected pod"].Pod
		for i := range p.Spec.Volumes {
			if p.Spec.Volumes[i].Name == name {
				do(&p.Spec.Volumes[i])
			}
		}
		out["volume "+name] = asked{admission{resource: "pods", operation: create, object: content(t, p)}, podGuard, "Proxy: volume " + name}
	}
	return out
}

var differences = map[string]struct {
	do   func(*corev1.Container)
	want string
}{
	"user":        {security(func(s *corev1.SecurityContext) { s.RunAsUser = new(int64(7)) }), "securityContext"},
	"group":       {security(func(s *corev1.SecurityContext) { s.RunAsGroup = new(int64(7)) }), "securityContext"},
	"root":        {security(func(s *corev1.SecurityContext) { s.RunAsNonRoot = not(s.RunAsNonRoot) }), "securityContext"},
	"files":       {security(func(s *corev1.SecurityContext) { s.ReadOnlyRootFilesystem = not(s.ReadOnlyRootFilesystem) }), "securityContext"},
	"escalation":  {security(func(s *corev1.SecurityContext) { s.AllowPrivilegeEscalation = not(s.AllowPrivilegeEscalation) }), "securityContext"},
	"power":       {security(func(s *corev1.SecurityContext) { s.Privileged = not(s.Privileged) }), "securityContext"},
	"added":       {security(func(s *corev1.SecurityContext) { s.Capabilities.Add = append(s.Capabilities.Add, "SYS_PTRACE") }), "securityContext"},
	"dropped":     {security(func(s *corev1.SecurityContext) { s.Capabilities.Drop = nil }), "securityContext"},
	"seccomp":     {security(func(s *corev1.SecurityContext) { s.SeccompProfile.Type = corev1.SeccompProfileTypeUnconfined }), "securityContext"},
	"procfs":      {security(func(s *corev1.SecurityContext) { s.ProcMount = new(corev1.UnmaskedProcMount) }), "securityContext"},
	"image":       {func(c *corev1.Container) { c.Image = "mine" }, "image"},
	"command":     {func(c *corev1.Container) { c.Command = []string{"sh"} }, "command"},
	"arguments":   {func(c *corev1.Container) { c.Args = append(c.Args, "more") }, "args"},
	"no argument": {func(c *corev1.Container) { c.Args = nil }, "args"},
	"source":      {func(c *corev1.Container) { c.EnvFrom = []corev1.EnvFromSource{{Prefix: "LD_"}} }, "environment"},
	"library":     {func(c *corev1.Container) { c.Env = append(c.Env, corev1.EnvVar{Name: "LD_PRELOAD", Value: "x"}) }, "environment"},
	"mount": {func(c *corev1.Container) {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "data", MountPath: "/usr"})
	}, "volumeMounts"},
	"a mount of a known name": {func(c *corev1.Container) {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "istio-envoy", MountPath: "/usr"})
	}, "volumeMounts"},
	"hook":      {func(c *corev1.Container) { c.Lifecycle = &corev1.Lifecycle{} }, "lifecycle and probes"},
	"liveness":  {func(c *corev1.Container) { c.LivenessProbe = &corev1.Probe{} }, "lifecycle and probes"},
	"readiness": {func(c *corev1.Container) { c.ReadinessProbe = &corev1.Probe{ProbeHandler: command} }, "lifecycle and probes"},
	"startup":   {func(c *corev1.Container) { c.StartupProbe = &corev1.Probe{ProbeHandler: command} }, "lifecycle and probes"},
}

var command = corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"sh"}}}

func security(do func(*corev1.SecurityContext)) func(*corev1.Container) {
	return func(c *corev1.Container) { do(c.SecurityContext) }
}

func not(b *bool) *bool { return new(b == nil || !*b) }
