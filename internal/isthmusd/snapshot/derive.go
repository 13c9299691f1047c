// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

// touched is what a commit has to derive again.
type touched struct {
	services  map[model.ServiceKey]struct{}
	workloads map[model.Key]struct{}
	nodes     map[string]struct{}
}

func newTouched() touched {
	return touched{map[model.ServiceKey]struct{}{}, map[model.Key]struct{}{}, map[string]struct{}{}}
}

// derive brings up to date, in this order: workloads (a pod and its node),
// endpoints (rows and workloads), summaries (endpoints and the service).
func (x *Txn) derive() {
	for name := range x.touched.nodes {
		for _, w := range x.pods.list(byNode, name) {
			x.touched.workloads[w.Key] = struct{}{}
		}
	}
	for k := range x.touched.workloads {
		x.deriveWorkload(k)
	}
	for k := range x.touched.services {
		x.deriveEndpoints(k)
	}
}

func (x *Txn) deriveWorkload(k model.Key) {
	var old *model.Workload
	var changed bool
	pod, ok := x.pods.get(k.String())
	if ok {
		old, changed = x.workloads.put(x.placed(pod))
	} else {
		old, changed = x.workloads.remove(k.String())
	}
	if !changed {
		return
	}
	for _, row := range x.rows.list(byWorkload, k.String()) {
		x.touched.services[row.service] = struct{}{}
	}
	for _, s := range x.services.list(Selecting, k.Namespace) {
		if !selectsWorkloads(s) {
			continue
		}
		if (ok && Matches(s.Selector, pod.Labels)) || (old != nil && Matches(s.Selector, old.Labels)) {
			x.touched.services[s.ServiceKey] = struct{}{}
		}
	}
}

// placed gives a workload its node's locality unless it has one of its own.
func (x *Txn) placed(w *model.Workload) *model.Workload {
	if w.Locality != "" {
		return w
	}
	n, ok := x.nodes.get(w.Node)
	if !ok || n.Locality == "" {
		return w
	}
	c := *w
	c.Locality = n.Locality
	return &c
}

// selectsWorkloads tells whether the service's endpoints are the workloads that
// it selects. For Kubernetes Services the EndpointSlices say it.
func selectsWorkloads(s *model.Service) bool {
	return len(s.Selector) > 0 && s.Object.Kind == model.KindServiceEntry
}

func (x *Txn) deriveEndpoints(k model.ServiceKey) {
	service, known := x.services.get(serviceKey(k))
	var all []model.Endpoint
	for _, row := range collect(x.rows.rows.Root(), serviceKey(k)+sep) {
		for _, e := range row.endpoints {
			if e.Workload != "" {
				if w, ok := x.workloads.get(e.Namespace + "/" + e.Workload); ok {
					e = join(e, w)
				}
			}
			all = append(all, e)
		}
	}
	if known && selectsWorkloads(service) {
		for _, w := range x.workloads.list(ByNamespace, k.Namespace) {
			if Matches(service.Selector, w.Labels) {
				all = append(all, endpointsOf(service, w)...)
			}
		}
	}
	if len(all) == 0 {
		x.endpoints.remove(serviceKey(k))
		x.summaries.remove(serviceKey(k))
		return
	}
	all = merge(all)
	x.endpoints.put(&endpointSet{service: k, endpoints: all})
	x.summaries.put(&summaryRow{service: k, Summary: summarize(service, all)})
}

// endpointsOf makes a selected workload an endpoint of the service: at its
// first address, at the target ports.
func endpointsOf(s *model.Service, w *model.Workload) []model.Endpoint {
	if len(w.IPs) == 0 {
		return nil
	}
	ports := make(map[string]uint32, len(s.Ports))
	for _, p := range s.Ports {
		ports[p.Name] = targetOf(p, w)
	}
	e := model.Endpoint{
		Address: w.IPs[0].String(), Ports: ports, Ready: w.Ready,
		Namespace: w.Namespace, Workload: w.Name,
	}
	return []model.Endpoint{join(e, w)}
}

func targetOf(p model.Port, w *model.Workload) uint32 {
	switch {
	case p.TargetPort != 0:
		return p.TargetPort
	case p.TargetName != "" && w.Ports[p.TargetName] != 0:
		return w.Ports[p.TargetName]
	}
	return p.Number
}

// Matches tells whether labels satisfy a selector of equalities. An empty
// selector matches everything; callers for which it selects nothing ask first.
func Matches(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}
