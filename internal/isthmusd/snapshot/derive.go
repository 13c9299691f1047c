// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

// touched is what a commit has to derive again.
type touched struct {
	services  map[model.ServiceKey]struct{}
	workloads map[string]struct{}
	nodes     map[string]struct{}
}

func newTouched() touched {
	return touched{map[model.ServiceKey]struct{}{}, map[string]struct{}{}, map[string]struct{}{}}
}

// derive brings up to date, in this order: workloads (a pod and its node),
// endpoints (rows and workloads), summaries (endpoints and the service).
func (x *Txn) derive() {
	for name := range x.touched.nodes {
		for _, w := range x.pods.list(byNode, name) {
			x.touched.workloads[workloadKey(w.Kind, w.Key)] = struct{}{}
		}
	}
	for k := range x.touched.workloads {
		x.deriveWorkload(k)
	}
	for k := range x.touched.services {
		x.deriveEndpoints(k)
	}
}

func (x *Txn) deriveWorkload(key string) {
	var now, old *model.Workload
	var changed bool
	if pod, ok := x.pods.get(key); ok {
		now = x.placed(pod)
		old, changed = x.workloads.put(now)
	} else {
		old, changed = x.workloads.remove(key)
	}
	if !changed {
		return
	}
	for _, row := range x.rows.list(byWorkload, key) {
		x.touched.services[row.service] = struct{}{}
	}
	x.touchSelecting(old)
	x.touchSelecting(now)
}

// touchSelecting touches the services of which a workload is an endpoint since
// they select it.
func (x *Txn) touchSelecting(w *model.Workload) {
	if w == nil {
		return
	}
	for _, s := range x.services.list(Selecting, w.Namespace) {
		if (s.EndpointsFromWorkloads || w.Kind == model.KindWorkloadEntry) && Matches(s.Selector, w.Labels) {
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

func (x *Txn) deriveEndpoints(k model.ServiceKey) {
	service, _ := x.services.get(serviceKey(k))
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
	for _, w := range x.selected(service, len(all)) {
		all = append(all, endpointsOf(service, w)...)
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

// selected lists the workloads that are endpoints of the service because it
// selects them. Pods of a Kubernetes Service that has listed endpoints are among
// those already; WorkloadEntries never are.
func (x *Txn) selected(s *model.Service, listed int) []*model.Workload {
	if s == nil || len(s.Selector) == 0 {
		return nil
	}
	index := entriesByNamespace
	if s.EndpointsFromWorkloads && (s.Object.Kind == model.KindServiceEntry || listed == 0) {
		index = ByNamespace
	}
	var out []*model.Workload
	for _, w := range x.workloads.list(index, s.Namespace) {
		if Matches(s.Selector, w.Labels) {
			out = append(out, w)
		}
	}
	return out
}

// endpointsOf makes a selected workload an endpoint of the service: at each of
// its addresses, as the EndpointSlices of a dual-stack Service would, at the
// target ports.
func endpointsOf(s *model.Service, w *model.Workload) []model.Endpoint {
	ports := make(map[string]uint32, len(s.Ports))
	for _, p := range s.Ports {
		ports[p.Name] = targetOf(p, w)
	}
	out := make([]model.Endpoint, 0, len(w.IPs))
	for _, ip := range w.IPs {
		e := model.Endpoint{
			Address: ip.String(), Ports: ports, Ready: w.Ready || s.PublishNotReady,
			Namespace: w.Namespace, Workload: w.Name, Weight: w.Weight,
		}
		out = append(out, join(e, w))
	}
	return out
}

func targetOf(p model.Port, w *model.Workload) uint32 {
	own, named := w.Ports[p.TargetName]
	if w.Kind == model.KindWorkloadEntry {
		own, named = w.Ports[p.Name]
	}
	switch {
	case named:
		return own
	case p.TargetPort != 0:
		return p.TargetPort
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
