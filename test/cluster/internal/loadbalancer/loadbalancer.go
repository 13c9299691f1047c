// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package loadbalancer gives Services of type LoadBalancer their addresses, which
// kube-proxy then answers, and the outside its routes to them.
package loadbalancer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
)

// Run gives addresses of the network, and routes to them by route, until the
// context ends.
func Run(ctx context.Context, client kubernetes.Interface, network netip.Prefix, route func(Routes) error) error {
	factory := informers.NewSharedInformerFactory(client, 0)
	b := balancer{
		client: client, network: network, route: route,
		services: factory.Core().V1().Services().Lister(),
		slices:   factory.Discovery().V1().EndpointSlices().Lister(),
		nodes:    factory.Core().V1().Nodes().Lister(),
	}
	changed := make(chan struct{}, 1)
	notify := func(any) {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	for _, i := range []cache.SharedIndexInformer{
		factory.Core().V1().Services().Informer(),
		factory.Discovery().V1().EndpointSlices().Informer(),
		factory.Core().V1().Nodes().Informer(),
	} {
		_, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: notify, DeleteFunc: notify, UpdateFunc: func(_, o any) { notify(o) },
		})
		if err != nil {
			return fmt.Errorf("watch services: %w", err)
		}
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	factory.WaitForCacheSync(ctx.Done())
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		if err := b.once(ctx); err != nil {
			fmt.Println("load balancer:", err) // the next change tries again, at the latest a node's heartbeat
		}
	}
}

type balancer struct {
	client   kubernetes.Interface
	network  netip.Prefix
	route    func(Routes) error
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
	nodes    corelisters.NodeLister
}

// once makes routes before it tells anyone of the addresses that they lead to.
func (b *balancer) once(ctx context.Context) error {
	services, err := b.services.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list services: %w", err)
	}
	endpoints, err := b.slices.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list endpoints: %w", err)
	}
	nodes, err := b.nodes.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	given := Assign(services, b.network)
	if err := b.route(RoutesOf(services, given, endpoints, nodes)); err != nil {
		return err
	}
	var errs []error
	for key, ip := range given {
		errs = append(errs, give(ctx, b.client, key, ip))
	}
	return errors.Join(errs...)
}

// Assign returns the services that want an address and have none, with the one
// to give: the wanted one if it is free, else the lowest free one.
func Assign(services []*corev1.Service, network netip.Prefix) map[types.NamespacedName]netip.Addr {
	services = slices.Clone(services)
	slices.SortFunc(services, func(a, b *corev1.Service) int {
		if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
			return c
		}
		return compareKeys(a, b)
	})
	taken := map[netip.Addr]bool{network.Masked().Addr(): true}
	var waiting []*corev1.Service
	for _, s := range services {
		if s.Spec.Type != corev1.ServiceTypeLoadBalancer || s.Spec.LoadBalancerClass != nil || s.DeletionTimestamp != nil {
			continue
		}
		if len(s.Status.LoadBalancer.Ingress) == 0 {
			waiting = append(waiting, s)
		}
		for _, i := range s.Status.LoadBalancer.Ingress {
			if ip, err := netip.ParseAddr(i.IP); err == nil {
				taken[ip] = true
			}
		}
	}
	given := map[types.NamespacedName]netip.Addr{}
	for _, s := range waiting {
		ip, err := netip.ParseAddr(s.Spec.LoadBalancerIP)
		if err != nil || taken[ip] || !network.Contains(ip) {
			ip = free(network, taken)
		}
		if ip.IsValid() {
			taken[ip] = true
			given[types.NamespacedName{Namespace: s.Namespace, Name: s.Name}] = ip
		}
	}
	return given
}

func compareKeys(a, b *corev1.Service) int {
	ka, kb := a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name
	switch {
	case ka < kb:
		return -1
	case ka > kb:
		return 1
	}
	return 0
}

func free(network netip.Prefix, taken map[netip.Addr]bool) netip.Addr {
	for ip := network.Masked().Addr(); network.Contains(ip); ip = ip.Next() {
		if !taken[ip] {
			return ip
		}
	}
	return netip.Addr{}
}

func give(ctx context.Context, client kubernetes.Interface, key types.NamespacedName, ip netip.Addr) error {
	patch, err := json.Marshal(map[string]any{"status": map[string]any{
		"loadBalancer": corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: ip.String()}}},
	}})
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	_, err = client.CoreV1().Services(key.Namespace).Patch(ctx, key.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("give %s to %s: %w", ip, key, err)
	}
	return nil
}
