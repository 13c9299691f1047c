// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// NewCluster asks a cluster through its dynamic client.
func NewCluster(client dynamic.Interface) Cluster { return cluster{client} }

type cluster struct{ client dynamic.Interface }

func (c cluster) ConfigMap(ctx context.Context, namespace, name string) (map[string]string, error) {
	kind := schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	u, err := c.client.Resource(kind).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("there is no ConfigMap %s in namespace %s: is the mesh installed, and under that name?", name, namespace)
	}
	if err != nil {
		return nil, fmt.Errorf("get ConfigMap %s/%s: %w", namespace, name, err)
	}
	out := map[string]string{}
	data, _ := u.Object["data"].(map[string]any)
	for k, v := range data {
		if s, ok := v.(string); ok {
			out[k] = s
		}
	}
	return out, nil
}

func (c cluster) Topologies(ctx context.Context) ([]Topology, error) {
	kind := schema.GroupVersionResource{Group: "isthmus.dev", Version: "v1alpha1", Resource: "meshtopologies"}
	list, err := c.client.Resource(kind).List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) {
		return nil, errors.New("this cluster serves no MeshTopology: is the operator installed?")
	}
	if err != nil {
		return nil, fmt.Errorf("list MeshTopologies: %w", err)
	}
	out := make([]Topology, 0, len(list.Items))
	for i := range list.Items {
		t, err := topologyFrom(list.Items[i].Object)
		if err != nil {
			return nil, fmt.Errorf("read MeshTopology %s: %w", list.Items[i].GetName(), err)
		}
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b Topology) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}
