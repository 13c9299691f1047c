// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package inject gives pods their proxy. It is pure: a pod, the labels of its
// namespace and a Config go in; a decision with its reason and the changed pod
// come out. isthmusd's webhook and `isthmusctl inject` share it.
//
//	pod + namespace ─▶ decide ─▶ settings (annotations) ─▶ render ─▶ Patch
//
// What it renders is the contract with isthmus-agent and, where names and
// formats are Istio's, with the tools that read injected pods.
package inject

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// Names that injected pods carry.
const (
	// ProxyContainer is the proxy's container, sidecar or gateway.
	ProxyContainer = "istio-proxy"
	// InitContainer redirects the pod's traffic to the proxy.
	InitContainer = "istio-init"
	// UID and GID of the proxy; what they send is not redirected.
	UID = 1337
	// GID of the proxy.
	GID = 1337
)

// Namespace of a pod, as far as injection depends on it.
type Namespace struct {
	Name   string
	Labels map[string]string
}

// Request is one pod to decide on.
type Request struct {
	// Pod as admitted; it is not changed.
	Pod *corev1.Pod
	// Namespace that the pod is being created in. Pod.Namespace may be empty.
	Namespace Namespace
	// Cluster and Network override the Config's (they come with the webhook's path).
	Cluster, Network string
}

// Result of Inject.
type Result struct {
	Decision Decision
	// Pod with its proxy; nil when the decision is to leave the pod alone.
	Pod *corev1.Pod
	// Warnings are of what the pod asks for in vain.
	Warnings []FieldError
}

// Inject decides about a pod and renders its proxy. Injecting what Inject
// returned leaves it alone. An error is always a *RefusedError when the pod is at
// fault: the user wrote something that cannot be honoured.
func (in *Injector) Inject(req Request) (Result, error) {
	if req.Pod == nil {
		return Result{}, fmt.Errorf("inject: no pod")
	}
	d, err := in.decide(req)
	if err != nil || !d.Inject {
		return Result{Decision: d}, err
	}
	s, err := in.settingsOf(req.Pod)
	if err != nil {
		return Result{Decision: d}, err
	}
	pod := req.Pod.DeepCopy()
	r := renderer{in: in, req: req, pod: pod, set: s, owner: ownerOf(req.Pod)}
	if err := r.render(); err != nil {
		return Result{Decision: d}, err
	}
	return Result{Decision: d, Pod: pod, Warnings: in.warnings(req.Pod.Annotations, s)}, nil
}
