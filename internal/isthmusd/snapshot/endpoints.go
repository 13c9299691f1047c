// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"maps"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

// endpointRow holds the endpoints that one source (an EndpointSlice, a
// ServiceEntry) gives to a service.
type endpointRow struct {
	service   model.ServiceKey
	source    string
	endpoints []model.Endpoint
}

// endpointSet holds all endpoints of a service: merged, joined with their
// workloads, sorted.
type endpointSet struct {
	service   model.ServiceKey
	endpoints []model.Endpoint
}

type summaryRow struct {
	service model.ServiceKey
	model.Summary
}

func rowKey(k model.ServiceKey, source string) string { return serviceKey(k) + sep + source }

func rowSchema() *schema[*endpointRow] {
	return &schema[*endpointRow]{
		table: rowsTable,
		key:   func(r *endpointRow) string { return rowKey(r.service, r.source) },
		equal: func(a, b *endpointRow) bool { return slices.EqualFunc(a.endpoints, b.endpoints, sameEndpoint) },
		indexes: []indexer[*endpointRow]{
			{byWorkload, func(r *endpointRow) []string {
				return r.each(func(e model.Endpoint) string {
					if e.Workload == "" {
						return ""
					}
					return e.Namespace + "/" + e.Workload
				})
			}},
			{byNode, func(r *endpointRow) []string {
				return r.each(func(e model.Endpoint) string { return e.Node })
			}},
		},
	}
}

// each lists what the row's endpoints have, unless that is nothing.
func (r *endpointRow) each(of func(model.Endpoint) string) []string {
	keys := make([]string, 0, len(r.endpoints))
	for _, e := range r.endpoints {
		if k := of(e); k != "" {
			keys = append(keys, k)
		}
	}
	return unique(keys)
}

func endpointSchema() *schema[*endpointSet] {
	return &schema[*endpointSet]{
		table: Endpoints,
		key:   func(s *endpointSet) string { return serviceKey(s.service) },
		equal: func(a, b *endpointSet) bool { return slices.EqualFunc(a.endpoints, b.endpoints, sameEndpoint) },
	}
}

func summarySchema() *schema[*summaryRow] {
	return &schema[*summaryRow]{
		table: Summaries,
		key:   func(s *summaryRow) string { return serviceKey(s.service) },
		equal: func(a, b *summaryRow) bool {
			return a.Ready == b.Ready && a.AllTLS == b.AllTLS && a.AnyTLS == b.AnyTLS &&
				slices.Equal(a.ServiceAccounts, b.ServiceAccounts) && slices.Equal(a.Addresses, b.Addresses)
		},
	}
}

func sameEndpoint(a, b model.Endpoint) bool {
	return a.Address == b.Address && a.Ready == b.Ready && a.Namespace == b.Namespace &&
		a.Workload == b.Workload && a.ServiceAccount == b.ServiceAccount && a.TLSMode == b.TLSMode &&
		a.Locality == b.Locality && a.Network == b.Network && a.Node == b.Node && a.Weight == b.Weight && a.Pod == b.Pod &&
		maps.Equal(a.Ports, b.Ports) && maps.Equal(a.Labels, b.Labels)
}

// merge sorts endpoints and unites those that are one: while slices are being
// reshuffled an address may stand in two of them, and slices with different
// ports share addresses. Where two disagree about a port they stay two.
func merge(all []model.Endpoint) []model.Endpoint {
	slices.SortStableFunc(all, func(a, b model.Endpoint) int {
		if c := strings.Compare(a.Address, b.Address); c != 0 {
			return c
		}
		return strings.Compare(a.Namespace+"/"+a.Workload, b.Namespace+"/"+b.Workload)
	})
	out := all[:0]
	for _, e := range all {
		if n := len(out); n > 0 && mergeable(&out[n-1], &e) {
			ports := maps.Clone(out[n-1].Ports)
			maps.Copy(ports, e.Ports)
			out[n-1].Ports = ports
			out[n-1].Ready = out[n-1].Ready || e.Ready
			continue
		}
		out = append(out, e)
	}
	return slices.Clip(out)
}

func mergeable(a, b *model.Endpoint) bool {
	if a.Address != b.Address || a.Workload != b.Workload || a.Namespace != b.Namespace || a.Ports == nil {
		return false
	}
	for name, n := range b.Ports {
		if m, ok := a.Ports[name]; ok && m != n {
			return false
		}
	}
	return true
}

// summarize says of the endpoints what clusters and listeners may know.
func summarize(s *model.Service, es []model.Endpoint) model.Summary {
	var out model.Summary
	accounts := map[string]struct{}{}
	out.AllTLS = len(es) > 0
	for i := range es {
		e := &es[i]
		if e.ServiceAccount != "" {
			accounts[e.Namespace+"/"+e.ServiceAccount] = struct{}{}
		}
		tls := e.TLSMode == model.TLSIstio
		out.AllTLS = out.AllTLS && tls
		out.AnyTLS = out.AnyTLS || tls
		if !e.Ready {
			continue
		}
		out.Ready = 1
		if s != nil && s.Headless {
			out.Addresses = append(out.Addresses, e.Address)
		}
	}
	out.ServiceAccounts = slices.Sorted(maps.Keys(accounts))
	out.Addresses = unique(out.Addresses)
	if len(out.Addresses) == 0 {
		out.Addresses = nil
	}
	return out
}
