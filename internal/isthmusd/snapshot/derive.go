// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

// touched is what a commit has to derive again.
type touched struct {
	services map[model.ServiceKey]struct{}
	// workloads as they were and as they are; nil where there was none.
	workloads []*model.Workload
	nodes     map[string]struct{}
}

func newTouched() touched {
	return touched{services: map[model.ServiceKey]struct{}{}, nodes: map[string]struct{}{}}
}

// derive brings up to date, in this order: endpoints (rows, workloads and the
// nodes they are on), summaries (endpoints and the service).
func (x *Txn) derive() {
	for name := range x.touched.nodes {
		for _, w := range x.workloads.list(byNode, name) {
			x.workloads.touch(w)
			x.touched.workloads = append(x.touched.workloads, w)
		}
		for _, row := range x.rows.list(byNode, name) {
			x.touched.services[row.service] = struct{}{}
		}
	}
	for _, w := range x.touched.workloads {
		if w != nil {
			x.touchServicesOf(w)
		}
	}
	s := selection{workloads: x.workloads, byPair: map[string]map[string][]*model.Workload{}}
	for k := range x.touched.services {
		x.deriveEndpoints(k, s)
	}
}

// touchServicesOf touches the services of which a workload is an endpoint, or
// would be by its labels.
func (x *Txn) touchServicesOf(w *model.Workload) {
	for _, row := range x.rows.list(byWorkload, workloadKey(w.Kind, w.Key)) {
		x.touched.services[row.service] = struct{}{}
	}
	for k, v := range w.Labels {
		for _, s := range x.services.list(byPair, pairKey(w.Namespace, pair(k, v))) {
			if (s.EndpointsFromWorkloads || w.Kind == model.KindWorkloadEntry) && Matches(s.Selector, w.Labels) {
				x.touched.services[s.ServiceKey] = struct{}{}
			}
		}
	}
}

// locality of what has none of its own is its node's.
func locality(own, node string, nodes func(string) (*model.Node, bool)) string {
	if own == "" && node != "" {
		if n, ok := nodes(node); ok {
			return n.Locality
		}
	}
	return own
}

func (x *Txn) deriveEndpoints(k model.ServiceKey, from selection) {
	service, _ := x.services.get(serviceKey(k))
	var all []model.Endpoint
	for _, row := range collect(x.rows.rows.Root(), serviceKey(k)+sep) {
		for _, e := range row.endpoints {
			e.Locality = locality(e.Locality, e.Node, x.nodes.get)
			if e.Workload != "" {
				if w, ok := x.workloads.get(e.Namespace + "/" + e.Workload); ok {
					e = x.join(e, w)
				}
			}
			all = append(all, e)
		}
	}
	for _, w := range from.of(service, len(all)) {
		for _, e := range endpointsOf(service, w) {
			all = append(all, x.join(e, w))
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

// join completes an endpoint with what its workload knows better.
func (x *Txn) join(e model.Endpoint, w *model.Workload) model.Endpoint {
	e.Labels, e.ServiceAccount, e.Network = w.Labels, w.ServiceAccount, w.Network
	if w.Node != "" {
		e.Node = w.Node
	}
	e.Pod = w.Kind == model.KindPod && !w.HostNetwork
	e.TLSMode = model.TLSDisabled
	if w.Proxied {
		e.TLSMode = model.TLSIstio
	}
	if l := locality(w.Locality, w.Node, x.nodes.get); l != "" {
		e.Locality = l
	}
	return e
}

// selection finds the workloads that services select, in one commit.
type selection struct {
	workloads *tableTxn[*model.Workload]
	// byPair holds, per namespace, its workloads by label.
	byPair map[string]map[string][]*model.Workload
}

// of lists the workloads that are endpoints of the service because it selects
// them. Pods of a Kubernetes Service that has listed endpoints are among those
// already; WorkloadEntries never are.
func (s selection) of(svc *model.Service, listed int) []*model.Workload {
	if svc == nil || len(svc.Selector) == 0 {
		return nil
	}
	var out []*model.Workload
	if !svc.EndpointsFromWorkloads || (svc.Object.Kind == model.KindService && listed > 0) {
		for _, w := range s.workloads.list(entriesByNamespace, svc.Namespace) {
			if Matches(svc.Selector, w.Labels) {
				out = append(out, w)
			}
		}
		return out
	}
	for _, w := range s.labelled(svc.Namespace)[firstPair(svc.Selector)] {
		if Matches(svc.Selector, w.Labels) {
			out = append(out, w)
		}
	}
	return out
}

func (s selection) labelled(ns string) map[string][]*model.Workload {
	if m, ok := s.byPair[ns]; ok {
		return m
	}
	m := map[string][]*model.Workload{}
	for _, w := range s.workloads.list(ByNamespace, ns) {
		for k, v := range w.Labels {
			m[pair(k, v)] = append(m[pair(k, v)], w)
		}
	}
	s.byPair[ns] = m
	return m
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
		out = append(out, e)
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
