// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"bytes"
	"maps"
	"reflect"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
)

// tables are the contents of a Snapshot.
type tables struct {
	services            table[*model.Service]
	rows                table[*endpointRow]
	endpoints           table[*endpointSet]
	summaries           table[*summaryRow]
	workloads           table[*model.Workload]
	nodes               table[*model.Node]
	accounts            table[model.Key]
	namespaces          table[*model.Namespace]
	secrets             table[*model.Secret]
	virtualServices     table[*model.VirtualService]
	destinationRules    table[*model.DestinationRule]
	gateways            table[*model.Gateway]
	sidecars            table[*model.Sidecar]
	peerAuthentications table[*model.PeerAuthentication]
}

func newTables() tables {
	return tables{
		services:   newTable(serviceSchema()),
		rows:       newTable(rowSchema()),
		endpoints:  newTable(endpointSchema()),
		summaries:  newTable(summarySchema()),
		workloads:  newTable(workloadSchema()),
		nodes:      newTable(nodeSchema()),
		accounts:   newTable(accountSchema()),
		namespaces: newTable(namespaceSchema()),
		secrets:    newTable(secretSchema()),
		virtualServices: newTable(configSchema(VirtualServices,
			func(v *model.VirtualService) object { return object{&v.Meta, v.Spec} },
			indexer[*model.VirtualService]{ByHost, func(v *model.VirtualService) []string { return unique(v.Spec.GetHosts()) }})),
		destinationRules: newTable(configSchema(DestinationRules,
			func(v *model.DestinationRule) object { return object{&v.Meta, v.Spec} },
			indexer[*model.DestinationRule]{ByHost, func(v *model.DestinationRule) []string { return []string{v.Spec.GetHost()} }})),
		gateways: newTable(configSchema(Gateways,
			func(v *model.Gateway) object { return object{&v.Meta, v.Spec} })),
		sidecars: newTable(configSchema(Sidecars,
			func(v *model.Sidecar) object { return object{&v.Meta, v.Spec} })),
		peerAuthentications: newTable(configSchema(PeerAuthentications,
			func(v *model.PeerAuthentication) object { return object{&v.Meta, v.Spec} })),
	}
}

// object is what all configuration kinds have in common.
type object struct {
	meta *model.Meta
	spec proto.Message
}

// configSchema is the schema of a kind of configuration: by key, all of them
// and by namespace, oldest first.
func configSchema[T any](t Table, of func(T) object, more ...indexer[T]) *schema[T] {
	return &schema[T]{
		table: t,
		key:   func(v T) string { return of(v).meta.Key.String() },
		order: func(v T) string {
			m := of(v).meta
			return age(m.Created) + m.Namespace + sep + m.Name
		},
		equal: func(a, b T) bool {
			x, y := of(a), of(b)
			return sameMeta(x.meta, y.meta) && proto.Equal(x.spec, y.spec)
		},
		indexes: append([]indexer[T]{
			{All, everywhere[T]},
			{ByNamespace, func(v T) []string { return []string{of(v).meta.Namespace} }},
		}, more...),
	}
}

// sameMeta ignores the resource version: a write that changed only status or
// annotations is not a change for us.
func sameMeta(a, b *model.Meta) bool {
	return a.Key == b.Key && a.Kind == b.Kind && a.Created.Equal(b.Created) && maps.Equal(a.Labels, b.Labels)
}

func everywhere[T any](T) []string { return []string{""} }

func unique(ss []string) []string {
	out := slices.Clone(ss)
	slices.Sort(out)
	return slices.Compact(out)
}

func serviceKey(k model.ServiceKey) string { return k.Namespace + "/" + k.Host }

func serviceSchema() *schema[*model.Service] {
	return &schema[*model.Service]{
		table: Services,
		key:   func(s *model.Service) string { return serviceKey(s.ServiceKey) },
		order: func(s *model.Service) string { return age(s.Object.Created) + s.Namespace + sep + s.Host },
		equal: func(a, b *model.Service) bool {
			if !sameMeta(&a.Object, &b.Object) {
				return false
			}
			x, y := *a, *b
			x.Object, y.Object = model.Meta{}, model.Meta{}
			return reflect.DeepEqual(&x, &y)
		},
		indexes: []indexer[*model.Service]{
			{All, everywhere[*model.Service]},
			{ByNamespace, func(s *model.Service) []string { return []string{s.Namespace} }},
			{ByHost, func(s *model.Service) []string { return []string{s.Host} }},
			{Selecting, func(s *model.Service) []string {
				if len(s.Selector) == 0 {
					return nil
				}
				return []string{s.Namespace}
			}},
			{byPair, func(s *model.Service) []string {
				if len(s.Selector) == 0 {
					return nil
				}
				return []string{pairKey(s.Namespace, firstPair(s.Selector))}
			}},
			{ByPort, servicePorts},
			{ByAddress, serviceAddresses},
		},
	}
}

// firstPair is a label that everything has that the selector selects.
func firstPair(selector map[string]string) string {
	first := ""
	for k := range selector {
		if first == "" || k < first {
			first = k
		}
	}
	return pair(first, selector[first])
}

func pair(key, value string) string { return key + "=" + value }

func pairKey(ns, pair string) string { return ns + "/" + pair }

func servicePorts(s *model.Service) []string {
	out := make([]string, len(s.Ports))
	for i, p := range s.Ports {
		out[i] = strconv.Itoa(int(p.Number))
	}
	return unique(out)
}

// serviceAddresses leaves out ranges: nobody looks them up by one address.
func serviceAddresses(s *model.Service) []string {
	var out []string
	for _, a := range s.Addresses {
		if a.IsSingleIP() {
			out = append(out, a.Addr().String())
		}
	}
	return unique(out)
}

// workloadKey keeps a WorkloadEntry apart from a pod of the same name.
func workloadKey(kind model.WorkloadKind, k model.Key) string {
	if kind == model.KindPod {
		return k.String()
	}
	return k.String() + sep + string(kind)
}

func workloadSchema() *schema[*model.Workload] {
	return &schema[*model.Workload]{
		table:   Workloads,
		natural: []Index{All, ByNamespace},
		key:     func(w *model.Workload) string { return workloadKey(w.Kind, w.Key) },
		equal:   func(a, b *model.Workload) bool { return reflect.DeepEqual(a, b) },
		indexes: []indexer[*model.Workload]{
			{entriesByNamespace, func(w *model.Workload) []string {
				if w.Kind != model.KindWorkloadEntry {
					return nil
				}
				return []string{w.Namespace}
			}},
			{byNode, func(w *model.Workload) []string {
				if w.Node == "" {
					return nil
				}
				return []string{w.Node}
			}},
			{ByIP, func(w *model.Workload) []string {
				if w.HostNetwork {
					return nil
				}
				ips := make([]string, len(w.IPs))
				for i, ip := range w.IPs {
					ips[i] = ip.String()
				}
				return unique(ips)
			}},
		},
	}
}

func nodeSchema() *schema[*model.Node] {
	return &schema[*model.Node]{
		table:   nodesTable,
		natural: []Index{All},
		key:     func(n *model.Node) string { return n.Name },
		equal:   func(a, b *model.Node) bool { return reflect.DeepEqual(a, b) },
	}
}

func namespaceSchema() *schema[*model.Namespace] {
	return &schema[*model.Namespace]{
		table:   Namespaces,
		natural: []Index{All},
		key:     func(n *model.Namespace) string { return n.Name },
		equal:   func(a, b *model.Namespace) bool { return a.Name == b.Name && maps.Equal(a.Labels, b.Labels) },
	}
}

func secretSchema() *schema[*model.Secret] {
	return &schema[*model.Secret]{
		table: Secrets,
		key:   func(s *model.Secret) string { return s.Key.String() },
		equal: func(a, b *model.Secret) bool {
			return a.Key == b.Key && bytes.Equal(a.Cert, b.Cert) &&
				bytes.Equal(a.PrivateKey, b.PrivateKey) && bytes.Equal(a.CA, b.CA)
		},
	}
}

func accountSchema() *schema[model.Key] {
	return &schema[model.Key]{
		table: accountsTable,
		key:   model.Key.String,
		equal: func(a, b model.Key) bool { return a == b },
	}
}
