// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package apply brings a set of objects into the cluster by server-side apply
// with one field manager, and removes what is no longer in the set. At rest it
// writes nothing: an object is applied only if what is wanted changed, or if
// somebody else changed one of the fields that it owns.
//
// How the second is known: Kubernetes records for every field manager the fields
// it owns, and takes a field away from a manager when another one changes it. So
// while our record in managedFields is what it was after our last apply, so are
// the values. A status update or another manager's fields leave it as it is.
package apply

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Manager is the field manager of everything that the operator applies.
const Manager = "isthmus-operator"

// Ref names an object.
type Ref struct {
	GVK schema.GroupVersionKind
	types.NamespacedName
}

func (r Ref) String() string {
	if r.Namespace == "" {
		return r.GVK.Kind + " " + r.Name
	}
	return r.GVK.Kind + " " + r.Namespace + "/" + r.Name
}

// RefOf names the object.
func RefOf(u *unstructured.Unstructured) Ref {
	return Ref{GVK: u.GroupVersionKind(), NamespacedName: client.ObjectKeyFromObject(u)}
}

// Change is one write.
type Change struct {
	Ref    Ref
	Action Action
}

// Action is what was done.
type Action string

// The actions.
const (
	Created Action = "created"
	Updated Action = "updated"
	Deleted Action = "deleted"
)

// Applier remembers what it applied. One serves all controllers.
type Applier struct {
	client client.Client
	// live reads objects whose kinds are not cached.
	live    client.Reader
	metrics Metrics

	mu   sync.Mutex
	last map[Ref]record
}

// record is an object after its last apply.
type record struct {
	desired, owned  [sha256.Size]byte
	uid             types.UID
	resourceVersion string
}

// New makes an Applier. Kinds in the client's scheme are read through its cache,
// all others by the reader.
func New(c client.Client, live client.Reader, m Metrics) *Applier {
	return &Applier{client: c, live: live, metrics: m, last: map[Ref]record{}}
}

// Apply applies the objects in order and stops at the first that fails, so that
// nothing is built on what is not there.
func (a *Applier) Apply(ctx context.Context, objects ...*unstructured.Unstructured) ([]Change, error) {
	var changes []Change
	for _, o := range objects {
		action, err := a.one(ctx, o)
		if err != nil {
			return changes, fmt.Errorf("apply %s: %w", RefOf(o), err)
		}
		if action != "" {
			c := Change{Ref: RefOf(o), Action: action}
			a.metrics.count(c)
			changes = append(changes, c)
		}
	}
	return changes, nil
}

func (a *Applier) one(ctx context.Context, desired *unstructured.Unstructured) (Action, error) {
	ref := RefOf(desired)
	hash, err := hashOf(desired.Object)
	if err != nil {
		return "", err
	}
	live, err := a.read(ctx, ref)
	if err != nil {
		return "", err
	}
	if !a.needed(ref, hash, live) {
		return "", nil
	}
	sent := desired.DeepCopy()
	if err := a.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(sent), client.FieldOwner(Manager), client.ForceOwnership); err != nil {
		return "", err
	}
	// What was applied, not what the write of replicas answers: somebody's edit that
	// came between the two would be taken for ours.
	applied := record{desired: hash, owned: ownedHash(sent), uid: sent.GetUID(), resourceVersion: sent.GetResourceVersion()}
	if err := a.replicas(ctx, desired, sent); err != nil {
		return "", err
	}
	a.remember(ref, applied)
	switch {
	case live == nil:
		return Created, nil
	case live.GetResourceVersion() == sent.GetResourceVersion():
		return "", nil
	}
	return Updated, nil
}

// needed decides from what was applied last and what is there now. A live object
// older than our own last write is a cache that lags, not a change.
func (a *Applier) needed(ref Ref, desired [sha256.Size]byte, live metav1.Object) bool {
	a.mu.Lock()
	last, ok := a.last[ref]
	a.mu.Unlock()
	switch {
	case !ok, last.desired != desired, live == nil, live.GetUID() != last.uid:
		return true
	case live.GetResourceVersion() == last.resourceVersion, behind(live.GetResourceVersion(), last.resourceVersion):
		return false
	}
	return ownedHash(live) != last.owned
}

func behind(live, last string) bool {
	l, errLive := strconv.ParseUint(live, 10, 64)
	r, errLast := strconv.ParseUint(last, 10, 64)
	return errLive == nil && errLast == nil && l < r
}

func (a *Applier) remember(ref Ref, r record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last[ref] = r
}

func (a *Applier) forget(ref Ref) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.last, ref)
}

// read returns nil if there is no such object.
func (a *Applier) read(ctx context.Context, ref Ref) (client.Object, error) {
	obj, reader, err := a.object(ref.GVK)
	if err != nil {
		return nil, err
	}
	err = reader.Get(ctx, ref.NamespacedName, obj)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return obj, nil
}

func (a *Applier) object(gvk schema.GroupVersionKind) (client.Object, client.Reader, error) {
	o, err := a.client.Scheme().New(gvk)
	if runtime.IsNotRegisteredError(err) || uncached(gvk) {
		m := &metav1.PartialObjectMetadata{}
		m.SetGroupVersionKind(gvk)
		return m, a.live, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("make %s: %w", gvk.Kind, err)
	}
	obj, ok := o.(client.Object)
	if !ok {
		return nil, nil, fmt.Errorf("%s is no object", gvk.Kind)
	}
	return obj, a.client, nil
}

// uncached kinds are never listed or watched: the operator may not.
func uncached(gvk schema.GroupVersionKind) bool {
	return gvk.Group == "" && gvk.Kind == "Secret"
}

// Delete removes an object if it is there, and reports whether it was.
func (a *Applier) Delete(ctx context.Context, ref Ref) ([]Change, error) {
	live, err := a.read(ctx, ref)
	if err != nil || live == nil {
		return nil, err
	}
	return a.remove(ctx, ref, live)
}

func (a *Applier) remove(ctx context.Context, ref Ref, live client.Object) ([]Change, error) {
	a.forget(ref)
	if live.GetDeletionTimestamp() != nil {
		return nil, nil
	}
	uid := live.GetUID()
	err := a.client.Delete(ctx, live, client.Preconditions{UID: &uid}, client.PropagationPolicy(metav1.DeletePropagationBackground))
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("delete %s: %w", ref, err)
	}
	c := Change{Ref: ref, Action: Deleted}
	a.metrics.count(c)
	return []Change{c}, nil
}

// Prune removes the objects of these kinds that carry the labels and are not to be
// kept. Whatever is still there afterwards, on its way out, is remaining.
func (a *Applier) Prune(ctx context.Context, kinds []schema.GroupVersionKind, keep map[Ref]bool, opts ...client.ListOption) (changes []Change, remaining []Ref, err error) {
	var failures []error
	for _, gvk := range kinds {
		found, err := a.list(ctx, gvk, opts...)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		for _, o := range found {
			ref := Ref{GVK: gvk, NamespacedName: client.ObjectKeyFromObject(o)}
			if keep[ref] {
				continue
			}
			remaining = append(remaining, ref)
			done, err := a.remove(ctx, ref, o)
			changes = append(changes, done...)
			failures = append(failures, err)
		}
	}
	return changes, remaining, errors.Join(failures...)
}

// Count counts the objects of these kinds.
func (a *Applier) Count(ctx context.Context, kinds []schema.GroupVersionKind, opts ...client.ListOption) (int, error) {
	n := 0
	for _, gvk := range kinds {
		found, err := a.list(ctx, gvk, opts...)
		if err != nil {
			return 0, err
		}
		n += len(found)
	}
	return n, nil
}

func (a *Applier) list(ctx context.Context, gvk schema.GroupVersionKind, opts ...client.ListOption) ([]client.Object, error) {
	listGVK := gvk.GroupVersion().WithKind(gvk.Kind + "List")
	var list client.ObjectList
	reader := a.live
	if o, err := a.client.Scheme().New(listGVK); err == nil && !uncached(gvk) {
		list, _ = o.(client.ObjectList)
		reader = a.client
	}
	if list == nil {
		m := &metav1.PartialObjectMetadataList{}
		m.SetGroupVersionKind(listGVK)
		list = m
	}
	err := reader.List(ctx, list, opts...)
	if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", gvk.Kind, err)
	}
	var out []client.Object
	err = meta.EachListItem(list, func(o runtime.Object) error {
		if obj, ok := o.(client.Object); ok {
			out = append(out, obj)
		}
		return nil
	})
	return out, err
}

func hashOf(v any) ([sha256.Size]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("hash object: %w", err)
	}
	return sha256.Sum256(b), nil
}

// ownedHash is a hash of the fields that our manager owns in the object.
func ownedHash(o metav1.Object) [sha256.Size]byte {
	for _, m := range o.GetManagedFields() {
		if m.Manager == Manager && m.Operation == metav1.ManagedFieldsOperationApply && m.Subresource == "" && m.FieldsV1 != nil {
			return sha256.Sum256(m.FieldsV1.GetRawBytes())
		}
	}
	return [sha256.Size]byte{}
}
