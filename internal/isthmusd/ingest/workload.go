// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"net/netip"
	"slices"
	"strings"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/snapshot"
)

// Labels by which Istio places and marks workloads.
const (
	tlsModeLabel  = "security.istio.io/tlsMode"
	localityLabel = "topology.istio.io/locality"
	oldLocality   = "istio-locality"
	networkLabel  = "topology.istio.io/network"
	proxyName     = "istio-proxy"
)

func workloadRow(w *model.Workload) Row {
	return Row{
		Key:    "workload/" + string(w.Kind) + "/" + w.Key.String(),
		Put:    func(x *snapshot.Txn) { x.PutWorkload(w) },
		Remove: func(x *snapshot.Txn) { x.DeleteWorkload(w.Kind, w.Key) },
	}
}

// pod says nothing for pods that have ended: their addresses may be reused.
func (c Converter) pod(p *corev1.Pod) ([]Row, error) {
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return nil, nil
	}
	w := &model.Workload{
		Key: keyOf(p), UID: string(p.UID), IPs: podIPs(p), Labels: p.Labels,
		Annotations:    keepAnnotations(p.Annotations),
		ServiceAccount: p.Spec.ServiceAccountName, Node: p.Spec.NodeName,
		Locality: labelledLocality(p.Labels), Network: p.Labels[networkLabel],
		Ports: podPorts(p), Proxied: hasProxy(p), Ready: podReady(p), HostNetwork: p.Spec.HostNetwork,
	}
	if w.ServiceAccount == "" {
		w.ServiceAccount = "default"
	}
	return []Row{workloadRow(w)}, nil
}

func podIPs(p *corev1.Pod) []netip.Addr {
	var out []netip.Addr
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		if a, err := netip.ParseAddr(p.Status.PodIP); err == nil {
			out = append(out, a)
		}
	}
	return out
}

func containers(p *corev1.Pod) []corev1.Container {
	return slices.Concat(p.Spec.Containers, p.Spec.InitContainers)
}

func podPorts(p *corev1.Pod) map[string]uint32 {
	var out map[string]uint32
	for _, c := range containers(p) {
		for _, port := range c.Ports {
			if port.Name == "" {
				continue
			}
			if out == nil {
				out = map[string]uint32{}
			}
			out[port.Name] = uint32(port.ContainerPort)
		}
	}
	return out
}

// hasProxy tells whether the pod ends mesh TLS. The label, as in Istio, has the
// last word for proxies that are called something else.
func hasProxy(p *corev1.Pod) bool {
	switch p.Labels[tlsModeLabel] {
	case model.TLSIstio:
		return true
	case model.TLSDisabled:
		return false
	}
	return slices.ContainsFunc(containers(p), func(c corev1.Container) bool { return c.Name == proxyName })
}

// podReady takes a pod that reports no readiness at all, as one written by hand
// in a file, to be ready.
func podReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return p.Status.Phase == "" || p.Status.Phase == corev1.PodRunning
}

// labelledLocality reads the label that overrides a node's locality; dots stand
// for slashes, which label values may not have.
func labelledLocality(labels map[string]string) string {
	l := labels[localityLabel]
	if l == "" {
		l = labels[oldLocality]
	}
	if strings.Contains(l, "/") {
		return l
	}
	return strings.ReplaceAll(l, ".", "/")
}

func (c Converter) workloadEntry(e *networking.WorkloadEntry) ([]Row, error) {
	a, err := netip.ParseAddr(e.Spec.Address)
	if err != nil {
		return nil, problem("workload entry with address %q: only IP addresses are supported", e.Spec.Address)
	}
	labels := e.Spec.Labels
	if len(labels) == 0 {
		labels = e.Labels
	}
	w := &model.Workload{
		Key: keyOf(e), Kind: model.KindWorkloadEntry, IPs: []netip.Addr{a}, Labels: labels,
		ServiceAccount: e.Spec.ServiceAccount, Locality: e.Spec.Locality, Network: e.Spec.Network,
		Ports: e.Spec.Ports, Proxied: entryTLS(labels, e.Spec.ServiceAccount) == model.TLSIstio,
		Ready: true, Weight: e.Spec.Weight,
	}
	return []Row{workloadRow(w)}, nil
}

// entryTLS is Istio's rule for endpoints without a pod: the label, else mesh TLS
// if there is an account to expect.
func entryTLS(labels map[string]string, account string) string {
	if m := labels[tlsModeLabel]; m != "" {
		return m
	}
	if account != "" {
		return model.TLSIstio
	}
	return model.TLSDisabled
}
