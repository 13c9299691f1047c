// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package guardtest holds pods and what the guard says of them: one table for its
// unit tests and for those against a real API server.
package guardtest

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/internal/inject"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

//go:embed pods.yaml
var table string

//go:embed networkpolicies.yaml
var networkPolicies string

// NetworkPolicy is a case of a tenant's.
type NetworkPolicy struct {
	Spec networkingv1.NetworkPolicySpec `json:"spec"`
	// Want is the beginning of the refusal; empty if the policy is let in.
	Want string `json:"want"`
}

// NetworkPolicies are the table's, in a namespace of a mesh whose members have a
// label.
func NetworkPolicies(key, value, namespace string) (map[string]NetworkPolicy, error) {
	var rows map[string]NetworkPolicy
	text := strings.NewReplacer("KEY", key, "MESH", value, "NAMESPACE", namespace).Replace(networkPolicies)
	if err := yaml.UnmarshalStrict([]byte(text), &rows); err != nil {
		return nil, fmt.Errorf("read the table of policies: %w", err)
	}
	return rows, nil
}

// Case is one pod.
type Case struct {
	Pod *corev1.Pod
	// Want is the beginning of the refusal; empty if the pod is let in.
	Want string
}

// Cases are the table's, with proxies as injection renders them for a mesh.
func Cases(c topology.Config) (map[string]Case, error) {
	var rows map[string]struct {
		Base string         `json:"base"`
		Pod  map[string]any `json:"pod"`
		Want string         `json:"want"`
	}
	text := strings.NewReplacer("REVISION", c.Revision, "PROXY", c.Injection.Image).Replace(table)
	if err := yaml.UnmarshalStrict([]byte(text), &rows); err != nil {
		return nil, fmt.Errorf("read the table of pods: %w", err)
	}
	out := map[string]Case{}
	for name, row := range rows {
		pod, err := base(row.Base, c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if pod, err = overlay(pod, row.Pod); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out[name] = Case{Pod: pod, Want: row.Want}
	}
	return out, nil
}

func base(name string, c topology.Config) (*corev1.Pod, error) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}}}
	pod.Name, pod.Spec.ServiceAccountName = "case", "default"
	switch name {
	case "plain":
		return pod, nil
	case "gateway":
		pod.Annotations = map[string]string{"inject.istio.io/templates": "gateway"}
		pod.Spec.Containers = []corev1.Container{{Name: inject.ProxyContainer, Image: "auto"}}
	}
	c.Members, c.Injection.Policy = nil, topology.InjectAll
	in, err := inject.New(inject.FromTopology(c, nil))
	if err != nil {
		return nil, err
	}
	res, err := in.Inject(inject.Request{Pod: pod, Namespace: inject.Namespace{Name: "shop"}})
	return res.Pod, err
}

func overlay(pod *corev1.Pod, over map[string]any) (*corev1.Pod, error) {
	before, err := json.Marshal(pod)
	if err != nil {
		return nil, err
	}
	patch, err := json.Marshal(over)
	if err != nil {
		return nil, err
	}
	after, err := strategicpatch.StrategicMergePatch(before, patch, corev1.Pod{})
	if err != nil {
		return nil, fmt.Errorf("lay over: %w", err)
	}
	var out corev1.Pod
	return &out, json.Unmarshal(after, &out)
}
