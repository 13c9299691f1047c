// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package mutation

import (
	"maps"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/operator/guard/guardtest"
)

const (
	create, update, remove, connect = admissionv1.Create, admissionv1.Update, admissionv1.Delete, admissionv1.Connect

	podGuard       = "isthmus-guard-default"
	execGuard      = "isthmus-guard.exec-default"
	policyGuard    = "isthmus-guard.policies-default"
	labelGuard     = "isthmus-guard.enforced-default"
	templateGuard  = "isthmus-guard.templates-default"
	tenant         = "tenant"
	inBank, behind = "bank", "shop"
)

// Members, one for each selector, behind a wall that stands.
var (
	memberLabels = map[string]string{"kubernetes.io/metadata.name": inBank, "istio.io/rev": "default", v1alpha1.LabelEnforced: "default"}
	behindLabels = map[string]string{"kubernetes.io/metadata.name": behind, "istio-injection": "enabled", v1alpha1.LabelEnforced: "default"}
)

// admissions are all requests.
func admissions(t *testing.T) map[string]asked {
	t.Helper()
	out := map[string]asked{}
	add := func(prefix string, more map[string]asked) {
		for name, r := range more {
			if _, twice := out[prefix+name]; twice {
				t.Fatalf("%s%s is there twice", prefix, name)
			}
			if r.namespace == "" {
				r.namespace, r.labels = inBank, memberLabels
			}
			if r.user == "" {
				r.user = tenant
			}
			out[prefix+name] = r
		}
	}
	add("create a pod: ", newPods(t))
	add("an impostor: ", impostors(t))
	add("template: ", templates(t))
	add("change a pod: ", runningPods(t))
	add("debug: ", debuggers(t))
	add("exec: ", execs())
	add("policy: ", tenantPolicies(t))
	add("mark: ", marks())
	return out
}

func content(t *testing.T, o any) map[string]any {
	t.Helper()
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func pods(t *testing.T) map[string]guardtest.Case {
	t.Helper()
	cases, err := guardtest.Cases(guarded)
	if err != nil {
		t.Fatal(err)
	}
	return cases
}

func newPods(t *testing.T) map[string]asked {
	out := map[string]asked{}
	for name, c := range pods(t) {
		out[name] = asked{admission{resource: "pods", operation: create, object: content(t, c.Pod)}, podGuard, c.Want}
	}
	in := func(what admission, labels map[string]string, want string) asked {
		what.resource, what.operation, what.labels = "pods", create, labels
		if what.namespace == "" {
			what.namespace = labels["kubernetes.io/metadata.name"]
		}
		return asked{what, podGuard, want}
	}
	plain := content(t, pods(t)["a plain pod"].Pod)
	path := func(account string) map[string]any {
		p := pods(t)["a path of the node"].Pod
		p.Spec.ServiceAccountName = account
		return content(t, p)
	}
	unmarked, strange := maps.Clone(memberLabels), maps.Clone(memberLabels)
	delete(unmarked, v1alpha1.LabelEnforced)
	strange[v1alpha1.LabelEnforced] = "other"
	for name, c := range pods(t) {
		if c.Want == "" || strings.HasPrefix(c.Want, "Proxy:") {
			continue
		}
		c.Pod.Spec.ServiceAccountName = "everything"
		out["by an account that may everything: "+name] = in(admission{object: content(t, c.Pod)}, memberLabels, "")
	}
	windows, token, router, older := pods(t)["an injected pod"].Pod, pods(t)["an injected pod"].Pod, pods(t)["a gateway pod"].Pod, pods(t)["an injected pod"].Pod
	windows.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{HostProcess: new(true)}}
	mount := corev1.VolumeMount{Name: "kube-api-access-x", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"}
	token.Spec.InitContainers[0].VolumeMounts = append(token.Spec.InitContainers[0].VolumeMounts, mount)
	router.Spec.Containers[0].VolumeMounts = append(router.Spec.Containers[0].VolumeMounts, mount)
	older.Labels["istio.io/rev"] = "default-0-0-9"
	maps.Copy(out, map[string]asked{
		"a process of a Windows node":  in(admission{object: content(t, windows)}, memberLabels, "Privileged: container app"),
		"a token of the interception":  in(admission{object: content(t, token)}, memberLabels, ""),
		"a token of a gateway":         in(admission{object: content(t, router)}, memberLabels, ""),
		"another revision, injected":   in(admission{object: content(t, older)}, memberLabels, ""),
		"before the wall stands":       in(admission{object: plain}, unmarked, "ClosedStart: "),
		"behind another's wall":        in(admission{object: plain}, strange, "ClosedStart: "),
		"where it is injected":         in(admission{object: path("default")}, behindLabels, "HostPath: "),
		"in no member":                 in(admission{object: path("default")}, map[string]string{"kubernetes.io/metadata.name": "strangers"}, ""),
		"an exemption":                 in(admission{object: path("logs")}, memberLabels, ""),
		"an exemption in another":      in(admission{object: path("logs")}, behindLabels, "HostPath: "),
		"an exemption of another name": in(admission{object: path("logger")}, memberLabels, "HostPath: "),
	})
	return out
}

// templates are Deployments of the pods that the guard judges by rules.
func templates(t *testing.T) map[string]asked {
	out := map[string]asked{}
	template := func(p *corev1.Pod) map[string]any {
		o := content(t, p)
		return map[string]any{"metadata": o["metadata"], "spec": o["spec"]}
	}
	workload := func(resource string, spec, meta map[string]any, want string) asked {
		return asked{admission{resource: resource, operation: create, object: map[string]any{"metadata": meta, "spec": spec}}, templateGuard, want}
	}
	named := map[string]any{"name": "a"}
	for name, c := range pods(t) {
		if len(c.Want) > 6 && c.Want[:6] == "Proxy:" {
			continue
		}
		out[name] = workload("deployments", map[string]any{"template": template(c.Pod)}, named, c.Want)
	}
	bad := pods(t)["the node's processes"].Pod
	for _, resource := range []string{"statefulsets", "daemonsets", "replicasets", "jobs", "replicationcontrollers"} {
		out[resource] = workload(resource, map[string]any{"template": template(bad)}, named, "HostPID: ")
	}
	out["cronjobs"] = workload("cronjobs", map[string]any{"jobTemplate": map[string]any{"spec": map[string]any{"template": template(bad)}}}, named, "HostPID: ")
	for _, resource := range []string{"deployments", "cronjobs", "replicationcontrollers"} {
		changed := out[resource]
		if resource == "deployments" {
			changed = out["the node's processes"]
		}
		changed.operation, changed.old = update, changed.object
		out[resource+", changed"] = changed
	}
	out["made by a controller"] = workload("replicasets", map[string]any{"template": template(bad)},
		map[string]any{"name": "a", "ownerReferences": []any{map[string]any{"kind": "Deployment", "name": "a"}}}, "")
	out["that nobody owns"] = workload("replicasets", map[string]any{"template": template(bad)},
		map[string]any{"name": "a", "ownerReferences": []any{}}, "HostPID: ")
	elsewhere := out["the node's processes"]
	elsewhere.namespace, elsewhere.labels = behind, behindLabels
	out["where it is injected"] = elsewhere
	return out
}

func runningPods(t *testing.T) map[string]asked {
	t.Helper()
	change := func(base string, do func(*corev1.Pod), want string) asked {
		before := pods(t)[base].Pod
		after := before.DeepCopy()
		do(after)
		return asked{admission{resource: "pods", operation: update, object: content(t, after), old: content(t, before)}, podGuard, want}
	}
	const injected, gateway = "an injected pod", "a gateway pod"
	image := func(i int) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.InitContainers[i].Image = "mine" }
	}
	out := map[string]asked{}
	for name, c := range pods(t) {
		if c.Want != "" {
			out["that broke a rule before: "+name] = change(name, func(p *corev1.Pod) { p.Finalizers = []string{"a/b"} }, "")
		}
	}
	early := change(injected, func(p *corev1.Pod) { p.Finalizers = []string{"a/b"} }, "")
	early.namespace, early.labels = inBank, maps.Clone(memberLabels)
	delete(early.labels, v1alpha1.LabelEnforced)
	out["before the wall stands"] = early
	maps.Copy(out, map[string]asked{
		"the interception's image":              change(injected, image(0), "ProxyImage: "),
		"the proxy's image":                     change(injected, image(1), "ProxyImage: "),
		"a gateway's image":                     change(gateway, func(p *corev1.Pod) { p.Spec.Containers[0].Image = "mine" }, "ProxyImage: "),
		"an image that was there":               change("a proxy of another image", func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }, ""),
		"back to the mesh's image":              change("a sidecar of another image", func(p *corev1.Pod) { p.Spec.InitContainers[1].Image = guarded.Injection.Image }, ""),
		"images that change places":             change(injected, func(p *corev1.Pod) { p.Spec.InitContainers[1].Image = p.Spec.Containers[0].Image }, "ProxyImage: "),
		"the application's image":               change(injected, func(p *corev1.Pod) { p.Spec.Containers[0].Image = "app:2" }, ""),
		"a pod that was there before the guard": change("the node's network", func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }, ""),
		"keys that come too late":               change(injected, func(p *corev1.Pod) { p.Annotations["traffic.sidecar.istio.io/excludeOutboundPorts"] = "80" }, ""),
	})
	return out
}

func debuggers(t *testing.T) map[string]asked {
	t.Helper()
	uid, yes := int64(1337), true
	with := func(base, want string, do func(*corev1.EphemeralContainer)) asked {
		p := pods(t)[base].Pod
		before := content(t, p)
		c := corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "debug"}}
		do(&c)
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{c}
		return asked{admission{resource: "pods/ephemeralcontainers", operation: update, object: content(t, p), old: before}, podGuard, want}
	}
	const pod = "an injected pod"
	security := func(s corev1.SecurityContext) func(*corev1.EphemeralContainer) {
		return func(c *corev1.EphemeralContainer) { c.SecurityContext = &s }
	}
	return map[string]asked{
		"a container":                 with(pod, "", func(*corev1.EphemeralContainer) {}),
		"of the application":          with(pod, "", func(c *corev1.EphemeralContainer) { c.TargetContainerName = "app" }),
		"of the proxy":                with(pod, "DebugTarget: ", func(c *corev1.EphemeralContainer) { c.TargetContainerName = "istio-proxy" }),
		"of the interception":         with(pod, "DebugTarget: ", func(c *corev1.EphemeralContainer) { c.TargetContainerName = "istio-init" }),
		"that calls itself the proxy": with("a plain pod", "DebugTarget: ", func(c *corev1.EphemeralContainer) { c.Name = "istio-proxy" }),
		"with the proxy's user":       with(pod, "ProxyUser: container debug", security(corev1.SecurityContext{RunAsUser: &uid})),
		"with the proxy's group":      with(pod, "ProxyUser: container debug", security(corev1.SecurityContext{RunAsGroup: &uid})),
		"with power":                  with(pod, "Privileged: container debug", security(corev1.SecurityContext{Privileged: &yes})),
		"with capabilities":           with(pod, "Capabilities: container debug", security(corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"SYS_PTRACE"}}})),
		"with the proxy's files": with(pod, "ProxyVolumes: container debug", func(c *corev1.EphemeralContainer) {
			c.VolumeMounts = []corev1.VolumeMount{{Name: "istio-envoy", MountPath: "/e"}}
		}),
		"in a pod that broke rules before": with("fsGroup 1337", "", func(*corev1.EphemeralContainer) {}),
		"in a pod that opted out before":   with("a label against injection", "", func(*corev1.EphemeralContainer) {}),
	}
}

func execs() map[string]asked {
	call := func(resource, container, want string) asked {
		return asked{admission{resource: resource, operation: connect, object: map[string]any{"container": container}}, execGuard, want}
	}
	elsewhere := call("pods/exec", "istio-proxy", "Exec: a process")
	elsewhere.namespace, elsewhere.labels = behind, behindLabels
	return map[string]asked{
		"the proxy":            call("pods/exec", "istio-proxy", "Exec: a process"),
		"the interception":     call("pods/exec", "istio-init", "Exec: a process"),
		"nobody":               call("pods/exec", "", "Exec: name a container"),
		"the proxy, attached":  call("pods/attach", "istio-proxy", "Exec: a process"),
		"the application":      call("pods/exec", "app", ""),
		"where it is injected": elsewhere,
	}
}

func tenantPolicies(t *testing.T) map[string]asked {
	t.Helper()
	out := map[string]asked{}
	for key, value := range map[string]string{"istio.io/rev": "default", "istio-injection": "enabled"} {
		rows, err := guardtest.NetworkPolicies(key, value, inBank)
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(out, tableOf(t, key, rows))
	}
	theirs := content(t, &networkingv1.NetworkPolicy{})
	mine := &networkingv1.NetworkPolicy{}
	mine.Labels = map[string]string{v1alpha1.LabelTopology: "default"}
	ours := content(t, mine)
	by := func(user string, op admissionv1.OperationType, object, old map[string]any, want string) asked {
		return asked{admission{resource: "networkpolicies", operation: op, user: user, object: object, old: old}, policyGuard, want}
	}
	const refused = "Policy: "
	maps.Copy(out, map[string]asked{
		"ours made":                  by(tenant, create, ours, nil, refused),
		"ours changed":               by(tenant, update, ours, ours, refused),
		"ours made theirs":           by(tenant, update, theirs, ours, refused),
		"theirs made ours":           by(tenant, update, ours, theirs, refused),
		"ours deleted":               by(tenant, remove, nil, ours, refused),
		"theirs deleted":             by(tenant, remove, nil, theirs, ""),
		"ours by us":                 by(operatorUser, create, ours, nil, ""),
		"ours deleted by us":         by(operatorUser, remove, nil, ours, ""),
		"ours made by a janitor":     by("system:serviceaccount:kube-system:namespace-controller", create, ours, nil, refused),
		"ours deleted by a janitor":  by("system:serviceaccount:kube-system:namespace-controller", remove, nil, ours, ""),
		"ours without an owner":      by("system:serviceaccount:kube-system:generic-garbage-collector", remove, nil, ours, ""),
		"ours deleted by the master": by("system:kube-controller-manager", remove, nil, ours, ""),
	})
	for name, labels := range map[string]map[string]string{
		"where it is injected":     behindLabels,
		"beside the control plane": {"kubernetes.io/metadata.name": "isthmus-system"},
	} {
		r := out["ours deleted"]
		r.namespace, r.labels = labels["kubernetes.io/metadata.name"], labels
		out[name] = r
	}
	return out
}

func tableOf(t *testing.T, key string, rows map[string]guardtest.NetworkPolicy) map[string]asked {
	t.Helper()
	out := map[string]asked{}
	for name, row := range rows {
		o := content(t, &networkingv1.NetworkPolicy{Spec: row.Spec})
		made := admission{resource: "networkpolicies", operation: create, object: o}
		changed := made
		changed.operation, changed.old = update, content(t, &networkingv1.NetworkPolicy{})
		out[key+", "+name], out[key+", "+name+", changed"] = asked{made, policyGuard, row.Want}, asked{changed, policyGuard, row.Want}
	}
	return out
}

func marks() map[string]asked {
	namespace := func(mark string) map[string]any {
		l := map[string]any{"istio.io/rev": "default"}
		if mark != "" {
			l[v1alpha1.LabelEnforced] = mark
		}
		return map[string]any{"metadata": map[string]any{"name": inBank, "labels": l}}
	}
	by := func(user, resource string, op admissionv1.OperationType, object, old map[string]any, want string) asked {
		return asked{admission{resource: resource, operation: op, user: user, object: object, old: old}, labelGuard, want}
	}
	const refused = "Enforced: "
	return map[string]asked{
		"born with it":              by(tenant, "namespaces", create, namespace("default"), nil, refused),
		"born without it":           by(tenant, "namespaces", create, namespace(""), nil, ""),
		"put on":                    by(tenant, "namespaces", update, namespace("default"), namespace(""), refused),
		"put on by status":          by(tenant, "namespaces/status", update, namespace("default"), namespace(""), refused),
		"put on by finalize":        by(tenant, "namespaces/finalize", update, namespace("default"), namespace(""), refused),
		"taken off":                 by(tenant, "namespaces", update, namespace(""), namespace("default"), refused),
		"left on":                   by(tenant, "namespaces", update, namespace("default"), namespace("default"), ""),
		"another's":                 by(tenant, "namespaces", update, namespace("other"), namespace(""), ""),
		"put on by the operator":    by(operatorUser, "namespaces", update, namespace("default"), namespace(""), ""),
		"taken off by the operator": by(operatorUser, "namespaces", update, namespace(""), namespace("default"), ""),
	}
}
