// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envtest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

// mesh is one MeshTopology of a test, with a namespace and a member of its own.
type mesh struct {
	*world
	t      *testing.T
	name   string
	own    string
	member string
}

// newMesh makes a topology with one labelled member namespace.
func newMesh(t *testing.T, name string, kind v1alpha1.TopologyKind, change func(*v1alpha1.MeshTopologySpec)) *mesh {
	t.Helper()
	return newMeshIn(shared, t, name, kind, change)
}

func newMeshIn(w *world, t *testing.T, name string, kind v1alpha1.TopologyKind, change func(*v1alpha1.MeshTopologySpec)) *mesh {
	t.Helper()
	m := &mesh{world: w, t: t, name: name, own: "mesh-" + name, member: "member-" + name}
	m.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: m.member, Labels: map[string]string{"istio.io/rev": name}}})
	mt := &v1alpha1.MeshTopology{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.MeshTopologySpec{Topology: kind, Namespace: m.own},
	}
	mt.Spec.Ingress.Gateways = []v1alpha1.IngressGateway{{Name: "ingress"}}
	if change != nil {
		change(&mt.Spec)
	}
	m.create(mt)
	t.Cleanup(func() {
		m.health.report(t, name)
		if refused := m.requests.refusals(); len(refused) > 0 {
			t.Errorf("the operator was refused %d times, first: %s", len(refused), refused[0])
		}
	})
	return m
}

func (m *mesh) create(o client.Object) {
	m.t.Helper()
	if err := m.admin.Create(m.t.Context(), o); err != nil {
		m.t.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
}

func (m *mesh) get() *v1alpha1.MeshTopology {
	m.t.Helper()
	var mt v1alpha1.MeshTopology
	if err := m.admin.Get(m.t.Context(), client.ObjectKey{Name: m.name}, &mt); err != nil {
		m.t.Fatalf("read MeshTopology: %v", err)
	}
	return &mt
}

// edit changes the spec.
func (m *mesh) edit(change func(*v1alpha1.MeshTopologySpec)) {
	m.t.Helper()
	before := m.get()
	after := before.DeepCopy()
	change(&after.Spec)
	if err := m.admin.Patch(m.t.Context(), after, client.MergeFrom(before)); err != nil {
		m.t.Fatalf("edit the spec: %v", err)
	}
}

// holds waits until the topology holds and is Ready, for the present spec.
func (m *mesh) holds(kind v1alpha1.TopologyKind) {
	m.t.Helper()
	eventually(m.t, "topology "+string(kind), func() error {
		mt := m.get()
		c := meta.FindStatusCondition(mt.Status.Conditions, v1alpha1.ConditionReady)
		switch {
		case c == nil:
			return errors.New("no Ready condition")
		case mt.Status.ObservedGeneration != mt.Generation || mt.Status.Topology != kind || c.Status != metav1.ConditionTrue:
			return fmt.Errorf("%s at generation %d of %d: Ready=%s %s: %s", mt.Status.Topology, mt.Status.ObservedGeneration, mt.Generation, c.Status, c.Reason, c.Message)
		}
		return m.kstatus(status.CurrentStatus)
	})
}

// phase waits for a phase of a transition.
func (m *mesh) phase(name string) {
	m.t.Helper()
	eventually(m.t, "phase "+name, func() error {
		mt := m.get()
		if mt.Status.Transition == nil || mt.Status.Transition.Phase != name {
			return fmt.Errorf("transition is %+v", mt.Status.Transition)
		}
		return m.kstatus(status.InProgressStatus)
	})
}

// condition waits until a condition has a status and a reason.
func (m *mesh) condition(kind string, want metav1.ConditionStatus, reason string) {
	m.t.Helper()
	eventually(m.t, kind, func() error {
		c := meta.FindStatusCondition(m.get().Status.Conditions, kind)
		if c == nil || c.Status != want || c.Reason != reason {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
}

func (m *mesh) kstatus(want status.Status) error {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("MeshTopology"))
	if err := m.admin.Get(m.t.Context(), client.ObjectKey{Name: m.name}, u); err != nil {
		return err
	}
	got, err := status.Compute(u)
	if err != nil {
		return err
	}
	if got.Status != want {
		return fmt.Errorf("kstatus says %s: %s", got.Status, got.Message)
	}
	return nil
}

// config is what isthmusd is told.
func (m *mesh) config() topology.Config {
	m.t.Helper()
	var cm corev1.ConfigMap
	if err := m.admin.Get(m.t.Context(), client.ObjectKey{Namespace: m.own, Name: topology.ConfigMapName(m.name)}, &cm); err != nil {
		m.t.Fatalf("read the configuration: %v", err)
	}
	c, err := topology.Parse(cm.Data[topology.ConfigKey])
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

// kinds of everything that a topology may make.
var kinds = []schema.GroupVersionKind{
	{Version: "v1", Kind: "ConfigMap"}, {Version: "v1", Kind: "Secret"}, {Version: "v1", Kind: "Service"},
	{Version: "v1", Kind: "ServiceAccount"}, {Group: "apps", Version: "v1", Kind: "Deployment"},
	{Group: "autoscaling", Version: "v2", Kind: "HorizontalPodAutoscaler"},
	{Group: "policy", Version: "v1", Kind: "PodDisruptionBudget"},
	{Group: "networking.k8s.io", Version: "v1", Kind: "NetworkPolicy"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "RoleBinding"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "ClusterRoleBinding"},
	{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "MutatingWebhookConfiguration"},
	{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "ValidatingWebhookConfiguration"},
	{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "ValidatingAdmissionPolicy"},
	{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "ValidatingAdmissionPolicyBinding"},
	{Group: "networking.istio.io", Version: "v1", Kind: "ServiceEntry"},
	v1alpha1.GroupVersion.WithKind("MeshMember"),
}

// inventory lists what carries the topology's label: "Kind namespace/name", sorted.
func (m *mesh) inventory() []string {
	m.t.Helper()
	var out []string
	for _, k := range kinds {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(k.GroupVersion().WithKind(k.Kind + "List"))
		err := m.admin.List(m.t.Context(), list, client.MatchingLabels{v1alpha1.LabelTopology: m.name})
		if meta.IsNoMatchError(err) {
			continue
		}
		if err != nil {
			m.t.Fatalf("list %s: %v", k.Kind, err)
		}
		for _, o := range list.Items {
			id := k.Kind + " " + o.GetNamespace() + "/" + o.GetName()
			out = append(out, strings.ReplaceAll(strings.ReplaceAll(id, m.own, "own"), m.member, "member"))
		}
		for _, o := range list.Items {
			if owners := o.GetOwnerReferences(); k.Kind != "Secret" && (len(owners) != 1 || owners[0].Kind != "MeshTopology" || owners[0].Name != m.name) {
				m.t.Errorf("%s %s is owned by %v", k.Kind, o.GetName(), owners)
			}
		}
	}
	slices.Sort(out)
	return out
}

// remove deletes the topology and waits until it is gone.
func (m *mesh) remove() {
	m.t.Helper()
	if err := m.admin.Delete(m.t.Context(), m.get()); err != nil {
		m.t.Fatalf("delete: %v", err)
	}
	m.gone()
}

// gone waits until the topology is.
func (m *mesh) gone() {
	m.t.Helper()
	eventually(m.t, "deletion", func() error {
		var mt v1alpha1.MeshTopology
		err := m.admin.Get(m.t.Context(), client.ObjectKey{Name: m.name}, &mt)
		if apierrors.IsNotFound(err) {
			return m.health.ended(m.name)
		}
		if err != nil {
			return err
		}
		return fmt.Errorf("still there: %v", meta.FindStatusCondition(mt.Status.Conditions, v1alpha1.ConditionReady))
	})
}

// read reads one object as a typed value.
func read[T client.Object](m *mesh, namespace, name string, into T) T {
	m.t.Helper()
	eventually(m.t, fmt.Sprintf("%T %s/%s", into, namespace, name), func() error {
		return m.admin.Get(m.t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, into)
	})
	return into
}
