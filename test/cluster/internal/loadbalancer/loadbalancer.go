// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package loadbalancer gives Services of type LoadBalancer their addresses, which
// kube-proxy then answers and the outside routes to the node.
package loadbalancer

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Run gives addresses of the network until the context ends.
func Run(ctx context.Context, client kubernetes.Interface, network netip.Prefix) error {
	factory := informers.NewSharedInformerFactory(client, 0)
	services := factory.Core().V1().Services()
	changed := make(chan struct{}, 1)
	notify := func(any) {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	_, err := services.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: notify, DeleteFunc: notify, UpdateFunc: func(_, o any) { notify(o) },
	})
	if err != nil {
		return fmt.Errorf("watch services: %w", err)
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
		all, err := services.Lister().List(labels.Everything())
		if err != nil {
			return fmt.Errorf("list services: %w", err)
		}
		for key, ip := range Assign(all, network) {
			if err := give(ctx, client, key, ip); err != nil {
				fmt.Println("load balancer:", err) // the next change of any service tries again
			}
		}
	}
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
