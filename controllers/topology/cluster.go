// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/internal/operator/allowance"
	mesh "github.com/isthmus-mesh/isthmus/internal/topology"
)

// gatherCluster reads where the cluster's DNS and API server are. Their Services,
// and the DaemonSet of a cache of names, are read past the cache, which holds only
// our own; their EndpointSlices are watched.
func (r *Reconciler) gatherCluster(ctx context.Context, f *Facts) error {
	dns := f.Mesh.Spec.Egress.NetworkPolicy.DNS
	var err error
	if f.Cluster.DNS, err = r.service(ctx, client.ObjectKey{
		Namespace: cmp.Or(dns.Namespace, "kube-system"), Name: cmp.Or(dns.Service, "kube-dns"),
	}); err != nil {
		return err
	}
	if f.Cluster.NodeDNS, err = r.nodeDNS(ctx, cmp.Or(dns.Namespace, "kube-system")); err != nil {
		return err
	}
	f.Cluster.DNS.Addresses = append(f.Cluster.DNS.Addresses, dns.Addresses...)
	if len(f.Cluster.DNS.Ports) == 0 {
		f.Cluster.DNS.Ports = []mesh.Port{{Protocol: "UDP", Number: 53}, {Protocol: "TCP", Number: 53}}
	}
	f.Cluster.APIServer, err = r.service(ctx, client.ObjectKey{Namespace: "default", Name: "kubernetes"})
	return err
}

// nodeLocalDNS is the name by which Kubernetes' own cache of names is installed.
const nodeLocalDNS = "node-local-dns"

// nodeDNS reads where the cache of names on each node is reached, if there is one:
// pods may have been told its address instead of the Service's.
func (r *Reconciler) nodeDNS(ctx context.Context, namespace string) (allowance.Service, error) {
	var d appsv1.DaemonSet
	if err := r.Live.Get(ctx, client.ObjectKey{Namespace: namespace, Name: nodeLocalDNS}, &d); err != nil {
		return allowance.Service{}, client.IgnoreNotFound(err)
	}
	return listening(&d), nil
}

// listening is where a cache of names listens: at the addresses that its flag
// -localip lists; and where it has a network of its own, to which some CNIs lead
// what is meant for the Service, as any pod.
func listening(d *appsv1.DaemonSet) allowance.Service {
	out := allowance.Service{Namespace: d.Namespace}
	if !d.Spec.Template.Spec.HostNetwork && d.Spec.Selector != nil {
		out.Selector = d.Spec.Selector.MatchLabels
	}
	for _, c := range d.Spec.Template.Spec.Containers {
		args := slices.Concat(c.Command, c.Args)
		for i, arg := range args {
			name, list, given := strings.Cut(strings.TrimLeft(arg, "-"), "=")
			if name != "localip" {
				continue
			}
			if !given && i+1 < len(args) {
				list = args[i+1]
			}
			out.Addresses = append(out.Addresses, strings.Split(list, ",")...)
		}
	}
	return out
}

// service reads a Service and its endpoints; one that is not there has no address.
func (r *Reconciler) service(ctx context.Context, key client.ObjectKey) (allowance.Service, error) {
	var s corev1.Service
	if err := r.Live.Get(ctx, key, &s); err != nil {
		return allowance.Service{}, client.IgnoreNotFound(err)
	}
	var slices discoveryv1.EndpointSliceList
	if err := r.slices(key.Namespace).List(ctx, &slices, client.InNamespace(key.Namespace),
		client.MatchingLabels{discoveryv1.LabelServiceName: key.Name}); err != nil {
		return allowance.Service{}, fmt.Errorf("list EndpointSlices of %s: %w", key, err)
	}
	return reached(&s, slices.Items), nil
}

// slices is the reader of EndpointSlices of a namespace.
func (r *Reconciler) slices(namespace string) client.Reader {
	if slices.Contains(WatchedEndpoints(), namespace) {
		return r.Client
	}
	return r.Live
}

// WatchedEndpoints are the namespaces whose EndpointSlices are cached.
func WatchedEndpoints() []string { return []string{"default", "kube-system"} }

// portMetrics is the port that DNS Services carry besides their own, by custom.
const portMetrics = "metrics"

// reached is how a Service is reached: its own addresses and ports, and those of
// its endpoints, for enforcers on either side of address translation.
func reached(s *corev1.Service, endpoints []discoveryv1.EndpointSlice) allowance.Service {
	out := allowance.Service{Namespace: s.Namespace, Selector: s.Spec.Selector}
	for _, ip := range s.Spec.ClusterIPs {
		if ip != corev1.ClusterIPNone {
			out.Addresses = append(out.Addresses, ip)
		}
	}
	for _, p := range s.Spec.Ports {
		if p.Name != portMetrics {
			out.Ports = append(out.Ports, port(p.Protocol, p.Port))
		}
	}
	for _, e := range endpoints {
		if e.AddressType != discoveryv1.AddressTypeIPv4 && e.AddressType != discoveryv1.AddressTypeIPv6 {
			continue
		}
		for _, ep := range e.Endpoints {
			out.Addresses = append(out.Addresses, ep.Addresses...)
		}
		for _, p := range e.Ports {
			if p.Port != nil && p.Protocol != nil && (p.Name == nil || *p.Name != portMetrics) {
				out.Ports = append(out.Ports, port(*p.Protocol, *p.Port))
			}
		}
	}
	slices.SortFunc(out.Ports, func(a, b mesh.Port) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Protocol, b.Protocol))
	})
	out.Ports = slices.Compact(out.Ports)
	slices.Sort(out.Addresses)
	out.Addresses = slices.Compact(out.Addresses)
	return out
}

func port(protocol corev1.Protocol, number int32) mesh.Port {
	return mesh.Port{Protocol: string(cmp.Or(protocol, corev1.ProtocolTCP)), Number: int(number)}
}
