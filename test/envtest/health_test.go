// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
	ctrlcache "sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
)

// health sees every version of every MeshTopology that there ever is, whatever a
// test waits for, and judges what is said in it: kstatus must come to what the mesh
// is, and the conditions must all be there.
type health struct {
	mu    sync.Mutex
	wrong map[string][]string // by the mesh's name
	gone  map[string]bool
}

func newHealth() *health { return &health{wrong: map[string][]string{}, gone: map[string]bool{}} }

// watch begins with the cache.
func (h *health) watch(ctx context.Context, c ctrlcache.Cache) error {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("MeshTopology"))
	informer, err := c.GetInformer(ctx, u)
	if err != nil {
		return err
	}
	_, err = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    h.see,
		UpdateFunc: func(_, o any) { h.see(o) },
		DeleteFunc: func(o any) {
			if name, err := cache.DeletionHandlingMetaNamespaceKeyFunc(o); err == nil {
				h.ends(name)
			}
		},
	})
	return err
}

func (h *health) see(o any) {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.gone, u.GetName())
	for _, what := range misstated(u) {
		h.wrong[u.GetName()] = append(h.wrong[u.GetName()], fmt.Sprintf("version %s: %s", u.GetResourceVersion(), what))
	}
}

func (h *health) ends(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone[name] = true
}

// ended is an error until all versions of the mesh were seen, to its end.
func (h *health) ended(name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.gone[name] {
		return errors.New("its end was not seen")
	}
	return nil
}

// report makes what is wrong with a mesh an error of its test.
func (h *health) report(t *testing.T, name string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.wrong[name] {
		t.Errorf("MeshTopology %s, %s", name, w)
	}
	delete(h.wrong, name)
}

// rest is what is wrong and was not reported.
func (h *health) rest() map[string][]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.wrong
}

// misstated lists what a mesh's status says and is not so.
func misstated(u *unstructured.Unstructured) []string {
	var m v1alpha1.MeshTopology
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &m); err != nil {
		return []string{err.Error()}
	}
	got, err := status.Compute(u)
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	if want := kstatusOf(&m); got.Status != want {
		out = append(out, fmt.Sprintf("kstatus says %s (%s), and not %s: %+v", got.Status, got.Message, want, m.Status.Conditions))
	}
	if got.Status == status.CurrentStatus && (m.Status.Topology != m.Spec.Topology || m.Status.Transition != nil) {
		out = append(out, fmt.Sprintf("kstatus says Current, topology %s is asked for, %s holds, in transition %+v", m.Spec.Topology, m.Status.Topology, m.Status.Transition))
	}
	if m.Status.ObservedGeneration > 0 {
		out = append(out, incomplete(&m.Status)...)
	}
	return out
}

// kstatusOf is what kstatus must come to: who only reads that must wait while
// something is under way, and no longer; and fail where a person is needed.
func kstatusOf(m *v1alpha1.MeshTopology) status.Status {
	is := func(kind string) bool { return meta.IsStatusConditionTrue(m.Status.Conditions, kind) }
	switch {
	case m.DeletionTimestamp != nil:
		return status.TerminatingStatus
	case m.Status.ObservedGeneration != m.Generation:
		return status.InProgressStatus
	case is(v1alpha1.ConditionStalled):
		return status.FailedStatus
	case is(v1alpha1.ConditionReady):
		return status.CurrentStatus
	}
	return status.InProgressStatus
}

// conditionTypes are those that a status always has.
var conditionTypes = []string{
	v1alpha1.ConditionReady, v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled, v1alpha1.ConditionAccepted,
	v1alpha1.ConditionAPIsAvailable, v1alpha1.ConditionMembersResolved, v1alpha1.ConditionCAReady,
	v1alpha1.ConditionControlPlaneReady, v1alpha1.ConditionInjectionReady, v1alpha1.ConditionGatewaysReady,
	v1alpha1.ConditionConfigDistributed, v1alpha1.ConditionEgressEnforced,
}

// incomplete lists what conditions lack, and what they say against each other.
func incomplete(s *v1alpha1.MeshTopologyStatus) []string {
	var out []string
	for _, kind := range conditionTypes {
		if c := meta.FindStatusCondition(s.Conditions, kind); c == nil || c.ObservedGeneration != s.ObservedGeneration || c.Reason == "" || c.Message == "" {
			out = append(out, fmt.Sprintf("condition %s of generation %d: %+v", kind, s.ObservedGeneration, c))
		}
	}
	var holds []string
	for _, c := range s.Conditions {
		if c.Status == metav1.ConditionTrue && slices.Contains(conditionTypes[:3], c.Type) {
			holds = append(holds, c.Type)
		}
	}
	ready := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionReady)
	if len(holds) != 1 && (len(holds) > 1 || ready == nil || ready.Reason != v1alpha1.ReasonSuspended) {
		out = append(out, fmt.Sprintf("one of Ready, Reconciling and Stalled must be True, these are: %q", holds))
	}
	if meta.IsStatusConditionTrue(s.Conditions, v1alpha1.ConditionEgressEnforced) {
		out = append(out, "EgressEnforced is True, and nothing measures it")
	}
	return out
}
