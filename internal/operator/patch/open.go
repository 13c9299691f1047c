// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"slices"
	"strings"
)

// Paths that are open. "*" is any name; "+" at the end opens what was not there
// before, so what the operator renders stays.
var (
	deployment = slices.Concat(metadata, under("spec",
		"minReadySeconds", "progressDeadlineSeconds", "revisionHistoryLimit", "strategy",
		"template.metadata.annotations.*+", "template.metadata.labels.*+",
	), under("spec.template.spec",
		"affinity", "dnsConfig", "dnsPolicy", "enableServiceLinks", "hostAliases", "nodeSelector", "overhead", "preemptionPolicy",
		"priorityClassName", "runtimeClassName", "schedulerName", "terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints",
		"volumes.*+",
	), under("spec.template.spec.containers.*",
		"args", "env.*+", "envFrom", "image", "imagePullPolicy", "lifecycle", "livenessProbe", "readinessProbe", "resources", "startupProbe",
		"terminationMessagePath", "terminationMessagePolicy", "volumeMounts.*+",
	))
	service = slices.Concat(metadata, under("spec",
		"allocateLoadBalancerNodePorts", "externalTrafficPolicy", "healthCheckNodePort", "internalTrafficPolicy", "ipFamilies", "ipFamilyPolicy",
		"loadBalancerClass", "loadBalancerIP", "loadBalancerSourceRanges", "publishNotReadyAddresses", "sessionAffinity", "sessionAffinityConfig",
		"trafficDistribution",
	))
	autoscaler = slices.Concat(metadata, under("spec", "behavior", "metrics"))
	budget     = slices.Concat(metadata, under("spec", "maxUnavailable", "minAvailable", "unhealthyPodEvictionPolicy"))
	metadata   = []string{"metadata.annotations.*+", "metadata.labels.*+"}
)

func under(prefix string, paths ...string) []string {
	out := make([]string, len(paths))
	for i, p := range paths {
		out[i] = prefix + "." + p
	}
	return out
}

// opened tells whether what differs at the path may differ.
func opened(open, path []string, before, after any) bool {
	for _, o := range open {
		pattern, added := strings.CutSuffix(o, "+")
		if !matches(strings.Split(pattern, "."), path) || added && before != nil {
			continue
		}
		return !ours(path) && !onNode(after)
	}
	return false
}

func matches(pattern, path []string) bool {
	if len(pattern) != len(path) {
		return false
	}
	for i, p := range pattern {
		if p != "*" && p != path[i] {
			return false
		}
	}
	return true
}

// ours tells whether the path ends in a key that the operator goes by.
func ours(path []string) bool { return strings.HasPrefix(path[len(path)-1], "isthmus.dev/") }

// onNode tells whether a volume is of the node's files.
func onNode(v any) bool {
	m, _ := v.(map[string]any)
	_, is := m["hostPath"]
	return is
}

// hint says where to go instead.
func hint(path []string) string {
	switch at := strings.Join(path, "."); {
	case at == "spec.replicas", at == "spec.minReplicas", at == "spec.maxReplicas":
		return ": set workload.replicas"
	case strings.HasPrefix(at, "spec.ports"), at == "spec.type":
		return ": set the gateway's service"
	case strings.Contains(at, ".env."):
		return ": the operator sets that variable"
	}
	return ": it could take the mesh's rights, selection or protection away"
}
