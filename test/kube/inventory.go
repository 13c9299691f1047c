// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
)

// Inventory is every object of every served kind, by "Kind namespace/name".
type Inventory map[string]*unstructured.Unstructured

// passing are kinds whose objects come and go by themselves.
var passing = map[string]bool{
	"Pod": true, "ReplicaSet": true, "ControllerRevision": true, "EndpointSlice": true, "Endpoints": true,
	"Event": true, "Lease": true, "PodMetrics": true, "NodeMetrics": true, "ComponentStatus": true, "IPAddress": true,
}

// Inventory lists what has the label, or everything if the selector is empty,
// but for kinds whose objects come and go by themselves. It asks the server which
// kinds there are, so that a new one is in by itself.
func (c *Client) Inventory(ctx context.Context, selector string) (Inventory, error) {
	lists, err := c.Typed.Discovery().ServerPreferredResources()
	if err != nil {
		return nil, fmt.Errorf("discover kinds: %w", err)
	}
	var mu sync.Mutex
	out := Inventory{}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			return nil, fmt.Errorf("discover kinds: %w", err)
		}
		for _, r := range l.APIResources {
			if !slices.Contains(r.Verbs, "list") || passing[r.Kind] {
				continue
			}
			g.Go(func() error {
				objs, err := c.Dynamic.Resource(gv.WithResource(r.Name)).List(ctx, metav1.ListOptions{LabelSelector: selector})
				if apierrors.IsNotFound(err) {
					return nil // its CRD went between the two questions
				}
				if err != nil {
					return fmt.Errorf("list %s: %w", r.Name, err)
				}
				mu.Lock()
				defer mu.Unlock()
				for i := range objs.Items {
					if ofKubernetes(&objs.Items[i]) {
						continue
					}
					out[Name(&objs.Items[i])] = &objs.Items[i]
				}
				return nil
			})
		}
	}
	return out, g.Wait() //nolint:wrapcheck // each says what was listed
}

// ofKubernetes tells whether the object is one that a controller of Kubernetes
// makes for itself when it first needs it.
func ofKubernetes(o *unstructured.Unstructured) bool {
	return o.GetKind() == "ServiceAccount" && o.GetNamespace() == metav1.NamespaceSystem
}

// Name names an object for people: its kind, namespace and name.
func Name(o *unstructured.Unstructured) string {
	return fmt.Sprintf("%s %s/%s", o.GetKind(), o.GetNamespace(), o.GetName())
}

// Names are the names of all, sorted.
func (i Inventory) Names() []string { return slices.Sorted(maps.Keys(i)) }

// Content is the object without what the server and controllers write into it:
// what a person would compare.
func Content(o *unstructured.Unstructured) map[string]any {
	u := o.DeepCopy()
	delete(u.Object, "status")
	for _, f := range []string{"managedFields", "resourceVersion", "uid", "generation", "creationTimestamp"} {
		unstructured.RemoveNestedField(u.Object, "metadata", f)
	}
	unstructured.RemoveNestedField(u.Object, "metadata", "annotations", "deployment.kubernetes.io/revision")
	if len(u.GetAnnotations()) == 0 {
		unstructured.RemoveNestedField(u.Object, "metadata", "annotations")
	}
	return u.Object
}

// Differences says what came, went and changed between two inventories, a line
// or a few for each object, sorted by name.
func Differences(before, after Inventory) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(union(before, after))) {
		b, a := before[name], after[name]
		switch {
		case b == nil:
			out = append(out, "came: "+name)
		case a == nil:
			out = append(out, "went: "+name)
		case a.GetUID() != b.GetUID():
			out = append(out, "is another: "+name)
		default:
			if d := cmp.Diff(Content(b), Content(a)); d != "" {
				out = append(out, "changed: "+name+"\n"+d)
			}
		}
	}
	return out
}

func union(a, b Inventory) map[string]bool {
	all := map[string]bool{}
	for name := range a {
		all[name] = true
	}
	for name := range b {
		all[name] = true
	}
	return all
}

// AwaitDifferences takes inventories until they differ from before as wanted, and
// returns how the last one differs otherwise: controllers and the garbage
// collector take their time.
func (c *Client) AwaitDifferences(ctx context.Context, before Inventory, want []string, limit time.Duration) (string, error) {
	var diff string
	err := wait.PollUntilContextTimeout(ctx, time.Second, limit, true, func(ctx context.Context) (bool, error) {
		after, err := c.Inventory(ctx, "")
		if err != nil {
			return false, err
		}
		diff = cmp.Diff(want, Differences(before, after))
		return diff == "", nil
	})
	if wait.Interrupted(err) && ctx.Err() == nil {
		return diff, nil
	}
	return diff, err //nolint:wrapcheck // says what was listed
}
