// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package mesh makes synthetic meshes: services with endpoints, routes, subsets
// and policies, as Kubernetes objects, and the workloads that would run there.
// Everything follows from a Shape, so a mesh, its proxies and the changes to it
// need no list of their own.
package mesh

import (
	"fmt"
	"slices"
)

// Domain of the hosts of ServiceEntries.
const Domain = "mesh.test"

// Root is the mesh's root namespace.
const Root = "isthmus-system"

// Kind is the form in which services are registered.
type Kind string

// The kinds of services.
const (
	// Entries are ServiceEntries with their endpoints inside.
	Entries Kind = "se"
	// Kubernetes is Services, EndpointSlices and Pods.
	Kubernetes Kind = "k8s"
)

// Shape of a mesh. A tenth of the services has a TCP port too; three tenths have
// a VirtualService and a DestinationRule with two subsets.
type Shape struct {
	// Services, spread over Namespaces, with so many Endpoints each.
	Services   int  `json:"services"`
	Endpoints  int  `json:"endpoints"`
	Namespaces int  `json:"namespaces"`
	Kind       Kind `json:"kind"`
	// Scoped gives every namespace a Sidecar with egress to itself alone.
	Scoped bool `json:"scoped,omitempty"`
}

// Object is a Kubernetes object.
type Object map[string]any

// list and fields shorten what objects are written with.
type (
	list   = []any
	fields = map[string]any
)

// Kind of the object.
func (o Object) Kind() string { return o["kind"].(string) }

// Version is the object's apiVersion.
func (o Object) Version() string { return o["apiVersion"].(string) }

// Name and namespace of the object.
func (o Object) Name() (namespace, name string) {
	m := o["metadata"].(fields)
	namespace, _ = m["namespace"].(string)
	name, _ = m["name"].(string)
	return namespace, name
}

func object(version, kind, namespace, name string, more fields) Object {
	m := fields{"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
	if namespace != "" {
		m["namespace"] = namespace
	}
	o := Object{"apiVersion": version, "kind": kind, "metadata": m}
	for k, v := range more {
		o[k] = v
	}
	return o
}

func labelled(o Object, labels fields) Object {
	o["metadata"].(fields)["labels"] = labels
	return o
}

const (
	networking = "networking.istio.io/v1"
	security   = "security.istio.io/v1"
)

// Service is one of a mesh's services, or one that is added to it.
type Service struct {
	shape *Shape
	// Number decides namespace, addresses and what the service has.
	Number int
	// Name differs from "svc-<number>" for an added one.
	Name string
	// tcp tells whether it has a TCP port as well.
	tcp bool
}

// Service returns a service of the mesh.
func (s *Shape) Service(number int) Service {
	return Service{shape: s, Number: number, Name: fmt.Sprintf("svc-%d", number), tcp: number%10 == 0}
}

// Added is the i-th service that the mesh does not have yet; it will be in the
// first namespace, with HTTP alone.
func (s *Shape) Added(i int, name string) Service {
	return Service{shape: s, Number: (s.Services/s.Namespaces + 5 + i) * s.Namespaces, Name: name}
}

// Namespace that the service is in.
func (v Service) Namespace() string { return fmt.Sprintf("ns-%d", v.Number%v.shape.Namespaces) }

// Host of the service.
func (v Service) Host() string {
	if v.shape.Kind == Kubernetes {
		return v.Name + "." + v.Namespace() + ".svc.cluster.local"
	}
	return v.Name + "." + v.Namespace() + "." + Domain
}

// Routed tells whether the service has a VirtualService and a DestinationRule.
func (v Service) Routed() bool { return v.Number%10 < 3 }

// virtual is the service's own address.
func (v Service) virtual() string {
	i := v.Number + 1
	return fmt.Sprintf("172.%d.%d.%d", 16+i>>16, i>>8&255, i&255)
}

// Endpoint is a workload of a service.
type Endpoint struct {
	Address, Pod, Version, Zone string
}

// Endpoint returns a workload of the service.
func (v Service) Endpoint(e int) Endpoint {
	i := v.Number*v.shape.Endpoints + e + 1
	return Endpoint{
		Address: fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255),
		Pod:     fmt.Sprintf("svc-%d-%d", v.Number, e),
		Version: fmt.Sprintf("v%d", e%2+1), Zone: fmt.Sprintf("z%d", e%3),
	}
}

// Labels of a workload.
func (v Service) Labels(e Endpoint) map[string]any {
	return fields{"app": fmt.Sprintf("svc-%d", v.Number), "version": e.Version}
}

// endpoints are those of the shape, and more at the given addresses.
func (v Service) endpoints(more []string) []Endpoint {
	var out []Endpoint
	for e := range v.shape.Endpoints {
		out = append(out, v.Endpoint(e))
	}
	for i, a := range more {
		out = append(out, Endpoint{Address: a, Pod: fmt.Sprintf("%s-x%d", v.Name, i), Version: fmt.Sprintf("v%d", i%2+1), Zone: "z0"})
	}
	return out
}

// Registration is the objects that register the service, with endpoints at more
// addresses than the shape has.
func (v Service) Registration(more ...string) []Object {
	if v.shape.Kind == Kubernetes {
		return v.kubernetes(v.endpoints(more))
	}
	return []Object{v.entry(v.endpoints(more))}
}

// Changed is those objects of the registration that differ by more endpoints.
func (v Service) Changed(more ...string) []Object {
	added := v.endpoints(more)[v.shape.Endpoints:]
	return slices.DeleteFunc(v.Registration(more...), func(o Object) bool {
		_, name := o.Name()
		return o.Kind() == "Service" ||
			o.Kind() == "Pod" && !slices.ContainsFunc(added, func(e Endpoint) bool { return e.Pod == name })
	})
}

func (v Service) entry(endpoints []Endpoint) Object {
	ports := list{fields{"number": 8080, "name": "http", "protocol": "HTTP"}}
	if v.tcp {
		ports = append(ports, fields{"number": 9000, "name": "tcp", "protocol": "TCP"})
	}
	var all list
	for _, e := range endpoints {
		labels := v.Labels(e)
		labels["security.istio.io/tlsMode"] = "istio"
		all = append(all, fields{"address": e.Address, "labels": labels, "locality": "r1/" + e.Zone, "serviceAccount": v.Name})
	}
	return object(networking, "ServiceEntry", v.Namespace(), v.Name, fields{"spec": fields{
		"hosts": list{v.Host()}, "addresses": list{v.virtual()}, "location": "MESH_INTERNAL",
		"resolution": "STATIC", "ports": ports, "endpoints": all,
	}})
}

func (v Service) kubernetes(endpoints []Endpoint) []Object {
	port := func(name string, number int) fields { return fields{"name": name, "port": number, "protocol": "TCP"} }
	ports := list{port("http", 8080)}
	if v.tcp {
		ports = append(ports, port("tcp", 9000))
	}
	ns, app := v.Namespace(), fmt.Sprintf("svc-%d", v.Number)
	out := []Object{object("v1", "Service", ns, v.Name, fields{"spec": fields{
		"clusterIP": v.virtual(), "clusterIPs": list{v.virtual()}, "ipFamilies": list{"IPv4"},
		"type": "ClusterIP", "selector": fields{"app": app}, "ports": ports,
	}})}
	var all list
	for _, e := range endpoints {
		node := "node-" + e.Zone
		all = append(all, fields{
			"addresses": list{e.Address}, "conditions": fields{"ready": true, "serving": true},
			"zone": e.Zone, "nodeName": node, "targetRef": fields{"kind": "Pod", "name": e.Pod, "namespace": ns},
		})
		out = append(out, labelled(object("v1", "Pod", ns, e.Pod, fields{
			"spec": fields{"nodeName": node, "serviceAccountName": v.Name, "containers": list{
				fields{"name": "app", "image": "app:1"}, fields{"name": "istio-proxy", "image": "proxy:1"},
			}},
			"status": fields{
				"phase": "Running", "podIP": e.Address, "podIPs": list{fields{"ip": e.Address}},
				"conditions": list{fields{"type": "Ready", "status": "True"}},
			},
		}), fields{"app": app, "version": e.Version, "security.istio.io/tlsMode": "istio"}))
	}
	slice := labelled(object("discovery.k8s.io/v1", "EndpointSlice", ns, v.Name+"-s", fields{
		"addressType": "IPv4", "ports": ports, "endpoints": all,
	}), fields{"kubernetes.io/service-name": v.Name})
	return append(out, slice)
}

// VirtualService of the service; a mark is a header that its main route sets.
func (v Service) VirtualService(mark string) Object {
	to := func(subset string, weight int) fields {
		return fields{"weight": weight, "destination": fields{
			"host": v.Host(), "subset": subset, "port": fields{"number": 8080},
		}}
	}
	main := fields{
		"name": "main", "route": list{to("v1", 90), to("v2", 10)}, "timeout": "5s",
		"retries": fields{"attempts": 2, "retryOn": "connect-failure,503"},
	}
	if mark != "" {
		main["headers"] = fields{"request": fields{"set": fields{"x-mark": mark}}}
	}
	canary := fields{
		"name": "canary", "route": list{to("v2", 100)},
		"match": list{fields{"headers": fields{"x-canary": fields{"exact": "1"}}, "uri": fields{"prefix": "/v2"}}},
	}
	return object(networking, "VirtualService", v.Namespace(), v.Name, fields{"spec": fields{
		"hosts": list{v.Host()}, "http": list{canary, main},
	}})
}

// DestinationRule of the service; more requests at once change its clusters.
func (v Service) DestinationRule(requests int) Object {
	subset := func(name string) fields { return fields{"name": name, "labels": fields{"version": name}} }
	return object(networking, "DestinationRule", v.Namespace(), v.Name, fields{"spec": fields{
		"host": v.Host(), "subsets": list{subset("v1"), subset("v2")},
		"trafficPolicy": fields{
			"connectionPool":   fields{"http": fields{"http2MaxRequests": requests}},
			"outlierDetection": fields{"consecutive5xxErrors": 5, "interval": "10s"},
		},
	}})
}

// requests at once in every DestinationRule as it is at first.
const requests = 1000

// Objects yields everything in the mesh.
func (s *Shape) Objects(yield func(Object) bool) {
	for _, o := range s.shared() {
		if !yield(o) {
			return
		}
	}
	for i := range s.Services {
		v := s.Service(i)
		objects := v.Registration()
		if v.Routed() {
			objects = append(objects, v.VirtualService(""), v.DestinationRule(requests))
		}
		for _, o := range objects {
			if !yield(o) {
				return
			}
		}
	}
}

// shared is what belongs to no service.
func (s *Shape) shared() []Object {
	out := []Object{
		object("v1", "Namespace", "", Root, nil),
		object(security, "PeerAuthentication", Root, "default", fields{"spec": fields{"mtls": fields{"mode": "STRICT"}}}),
	}
	for z := range 3 {
		zone := fmt.Sprintf("z%d", z)
		out = append(out, labelled(object("v1", "Node", "", "node-"+zone, nil),
			fields{"topology.kubernetes.io/region": "r1", "topology.kubernetes.io/zone": zone}))
	}
	for k := range s.Namespaces {
		ns := fmt.Sprintf("ns-%d", k)
		next := fmt.Sprintf("ns-%d", (k+1)%s.Namespaces)
		out = append(out,
			labelled(object("v1", "Namespace", "", ns, nil), fields{"kubernetes.io/metadata.name": ns, "istio-injection": "enabled"}),
			object(security, "AuthorizationPolicy", ns, "allow", fields{"spec": fields{"action": "ALLOW", "rules": list{fields{
				"from": list{fields{"source": fields{"namespaces": list{ns, next}}}},
				"to":   list{fields{"operation": fields{"methods": list{"GET", "POST"}}}},
			}}}}))
		if s.Scoped {
			out = append(out, object(networking, "Sidecar", ns, "default",
				fields{"spec": fields{"egress": list{fields{"hosts": list{"./*", Root + "/*"}}}}}))
		}
	}
	return out
}

// Account is a ServiceAccount.
func Account(namespace, name string) Object {
	return object("v1", "ServiceAccount", namespace, name, nil)
}

// Plain is an object of the root namespace that holds data: a Secret or a
// ConfigMap.
func Plain(kind, name string, data map[string]any) Object {
	return object("v1", kind, Root, name, fields{"data": data})
}
