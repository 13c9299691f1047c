// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// Labels and annotations that decide. They are Istio's.
const (
	// LabelRev selects a topology by name or revision, on namespaces and pods.
	LabelRev = "istio.io/rev"
	// LabelInjection on a namespace selects the topology named default.
	LabelInjection = "istio-injection"
	// KeyInject opts a pod in or out; as a label, or else as an annotation.
	KeyInject = "sidecar.istio.io/inject"
	// AnnotationStatus records on a pod what was injected.
	AnnotationStatus = "sidecar.istio.io/status"
	// DefaultTag is the topology that istio-injection=enabled selects.
	DefaultTag = "default"
)

// operatorNamespace is the operator's own; it must start without any webhook.
const operatorNamespace = "isthmus-operator"

// Reason tells why a pod gets a proxy, or why not.
type Reason string

// Reasons to inject.
const (
	// NamespaceSelected: a label of the namespace names this topology.
	NamespaceSelected Reason = "NamespaceSelected"
	// PodSelected: a label of the pod names this topology.
	PodSelected Reason = "PodSelected"
	// MemberSelected: the namespace is a member, and members get proxies unasked.
	MemberSelected Reason = "MemberSelected"
)

// Reasons not to inject.
const (
	// HostNetwork pods share the node's network; redirecting it would cut the node off.
	HostNetwork Reason = "HostNetwork"
	// Windows pods have no proxy that would run there.
	Windows Reason = "Windows"
	// SystemNamespace is never injected: kube-*, operator and control plane.
	SystemNamespace Reason = "SystemNamespace"
	// AlreadyInjected pods are left alone.
	AlreadyInjected Reason = "AlreadyInjected"
	// NotMember namespaces belong to no selector of the topology.
	NotMember Reason = "NotMember"
	// OptedOut: the pod says sidecar.istio.io/inject=false.
	OptedOut Reason = "OptedOut"
	// NamespaceOptedOut: the namespace says istio-injection=disabled.
	NamespaceOptedOut Reason = "NamespaceOptedOut"
	// OtherTopology: the labels name another topology or control plane.
	OtherTopology Reason = "OtherTopology"
	// NotSelected: no label asks for a proxy.
	NotSelected Reason = "NotSelected"
)

// Decision about a pod.
type Decision struct {
	Inject bool
	Reason Reason
}

func inject(r Reason) Decision { return Decision{Inject: true, Reason: r} }

func leave(r Reason) Decision { return Decision{Reason: r} }

// wish is what a pod says of itself.
type wish int

const (
	unsaid wish = iota
	wanted
	unwanted
)

// Decide tells whether a pod gets a proxy, without rendering it; the operator
// counts by it which pods lack theirs.
func (in *Injector) Decide(req Request) (Decision, error) { return in.decide(req) }

// decide follows Istio's webhook selectors: a namespace's labels go before a
// pod's, istio-injection before istio.io/rev, and opting out before everything.
func (in *Injector) decide(req Request) (Decision, error) {
	switch {
	case req.Pod.Spec.HostNetwork:
		return leave(HostNetwork), nil
	case req.Pod.Spec.OS != nil && req.Pod.Spec.OS.Name == corev1.Windows:
		return leave(Windows), nil
	case in.isSystem(req.Namespace.Name):
		return leave(SystemNamespace), nil
	case isInjected(req.Pod):
		return leave(AlreadyInjected), nil
	case !in.members.Has(req.Namespace.Labels):
		return leave(NotMember), nil
	}
	w, err := wishOf(req.Pod)
	if err != nil {
		return Decision{}, err
	}
	if w == unwanted {
		return leave(OptedOut), nil
	}
	return in.byLabels(req, w), nil
}

func (in *Injector) byLabels(req Request, w wish) Decision {
	all := in.cfg.Injection.Policy == topology.InjectAll
	enabled, rev := req.Namespace.Labels[LabelInjection], req.Namespace.Labels[LabelRev]
	podRev := req.Pod.Labels[LabelRev]
	switch {
	case enabled == "enabled":
		return in.ifServed(DefaultTag, NamespaceSelected)
	case enabled != "":
		return leave(NamespaceOptedOut)
	case rev != "":
		return in.ifServed(rev, NamespaceSelected)
	case podRev != "":
		return in.ifServed(podRev, PodSelected)
	case w == wanted && all:
		return inject(PodSelected)
	case w == wanted:
		return in.ifServed(DefaultTag, PodSelected)
	case all:
		return inject(MemberSelected)
	}
	return leave(NotSelected)
}

func (in *Injector) ifServed(rev string, why Reason) Decision {
	if rev == in.cfg.Name || rev == in.cfg.Revision {
		return inject(why)
	}
	return leave(OtherTopology)
}

func (in *Injector) isSystem(namespace string) bool {
	return strings.HasPrefix(namespace, "kube-") || namespace == operatorNamespace || namespace == in.cfg.Namespace
}

// isInjected tells whether some injector, ours or Istio's, has been here. The
// annotation alone does not count: it is often copied with a pod's YAML.
func isInjected(pod *corev1.Pod) bool {
	if _, ok := pod.Annotations[AnnotationStatus]; !ok {
		return false
	}
	return containerNamed(pod.Spec.InitContainers, ProxyContainer) >= 0 ||
		containerNamed(pod.Spec.Containers, ProxyContainer) >= 0
}

func wishOf(pod *corev1.Pod) (wish, error) {
	field := labelField(KeyInject)
	v, ok := pod.Labels[KeyInject]
	if !ok {
		field = annotationField(KeyInject)
		v = pod.Annotations[KeyInject]
	}
	switch strings.ToLower(v) {
	case "":
		return unsaid, nil
	case "true", "yes", "y", "on":
		return wanted, nil
	case "false", "no", "n", "off":
		return unwanted, nil
	}
	return unsaid, refused([]FieldError{{Field: field, Value: v, Reason: `must be "true" or "false"`}})
}

func containerNamed(cs []corev1.Container, name string) int {
	for i := range cs {
		if cs[i].Name == name {
			return i
		}
	}
	return -1
}
