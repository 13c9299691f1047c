// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package envtest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/pki"
)

func TestPodsStartAnewWithTheirServiceAccount(t *testing.T) {
	m := newMesh(t, "accounts", v1alpha1.EgressGateway, nil)
	m.holds(v1alpha1.EgressGateway)
	for account, deployment := range map[string]string{
		"isthmusd-" + m.name: "isthmusd-" + m.name + "-0-1-0", "ingress-" + m.name: "ingress-" + m.name, "egress-" + m.name: "egress-" + m.name,
	} {
		bears := func() (*corev1.ServiceAccount, error) {
			a := read(m, m.own, account, &corev1.ServiceAccount{})
			d := read(m, m.own, deployment, &appsv1.Deployment{})
			if got := d.Spec.Template.Annotations[v1alpha1.AnnotationAccount]; got != string(a.UID) {
				return a, fmt.Errorf("the pods of %s bear %q, the account is %s", deployment, got, a.UID)
			}
			return a, nil
		}
		a, err := bears()
		if err != nil {
			t.Error(err)
		}
		if d := read(m, m.own, deployment, &appsv1.Deployment{}); d.Generation > 2 {
			t.Errorf("%s was changed %d times by its installation", deployment, d.Generation)
		}
		if err := m.admin.Delete(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another account", func() error {
			now, err := bears()
			if now.UID == a.UID {
				return errors.New("the account is still there")
			}
			return err
		})
	}
	m.holds(v1alpha1.EgressGateway)
	m.restsWithoutWrites()
	m.remove()
}

func TestRootIsNotReplacedUnasked(t *testing.T) {
	m := newMesh(t, "roots", v1alpha1.IngressOnly, nil)
	m.holds(v1alpha1.IngressOnly)
	secret := read(m, m.own, "isthmus-ca-"+m.name, &corev1.Secret{})
	fingerprint := m.get().Status.CA.Fingerprint
	root := func() *corev1.ConfigMap { return read(m, m.own, "isthmus-ca-root-"+m.name, &corev1.ConfigMap{}) }
	published := root().Data["root-cert.pem"]
	other, err := pki.NewRoot(pki.RootOptions{Organization: "other", Validity: pki.Validity{Now: time.Now()}})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.Data()
	if err != nil {
		t.Fatal(err)
	}
	// In this order: each begins where the one before it ended.
	for _, tt := range []struct {
		name   string
		do     func(*corev1.Secret)
		reason string
		says   string
	}{
		{"the key is gone", nil, v1alpha1.ReasonLost, "delete ConfigMap mesh-roots/isthmus-ca-root-roots"},
		{"the key is back", func(*corev1.Secret) {}, "", ""},
		{"the key is another's", func(s *corev1.Secret) { s.Data = foreign }, v1alpha1.ReasonRootChanged, fingerprint[:16]},
		{"the key is nonsense", func(s *corev1.Secret) { s.Data = map[string][]byte{"ca-cert.pem": []byte("x")} }, v1alpha1.ReasonUnusable, "no usable CA"},
		{"the key is itself again", func(*corev1.Secret) {}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m.t = t
			live := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: m.own, Name: secret.Name}}
			if err := m.admin.Delete(t.Context(), live); client.IgnoreNotFound(err) != nil {
				t.Fatal(err)
			}
			if tt.do != nil {
				s := secret.DeepCopy()
				s.ResourceVersion, s.UID = "", ""
				tt.do(s)
				m.create(s)
			}
			m.looksAtTheKey()
			if tt.reason != "" {
				m.stalls(tt.reason, tt.says)
				m.condition(v1alpha1.ConditionCAReady, metav1.ConditionFalse, tt.reason)
			} else {
				m.holds(v1alpha1.IngressOnly)
			}
			if got := root().Data["root-cert.pem"]; got != published {
				t.Error("the published root is another")
			}
		})
	}
	m.t = t
	for name, edit := range map[string]func(*corev1.ConfigMap){
		"the text of what is published is edited": func(cm *corev1.ConfigMap) { cm.Data["root-cert.pem"] += "x" },
		"its fingerprint is edited":               func(cm *corev1.ConfigMap) { cm.Annotations[v1alpha1.AnnotationFingerprint] += "x" },
	} {
		t.Run(name, func(t *testing.T) {
			cm := root()
			edit(cm)
			if err := m.admin.Update(t.Context(), cm); err != nil {
				t.Fatal(err)
			}
			eventually(t, "repair", func() error {
				if cm := root(); cm.Data["root-cert.pem"] != published || cm.Annotations[v1alpha1.AnnotationFingerprint] != fingerprint {
					return fmt.Errorf("published: %v", cm)
				}
				return nil
			})
			m.holds(v1alpha1.IngressOnly)
		})
	}
	t.Run("a new beginning that is asked for", func(t *testing.T) {
		m.t = t
		if err := m.admin.Delete(t.Context(), read(m, m.own, secret.Name, &corev1.Secret{})); err != nil {
			t.Fatal(err)
		}
		if err := m.admin.Delete(t.Context(), root()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another root", func() error {
			if ca := m.get().Status.CA; ca == nil || ca.Fingerprint == fingerprint {
				return fmt.Errorf("the CA is %+v", ca)
			}
			return nil
		})
		m.event(v1alpha1.ReasonRootChanged, "start all pods")
		m.holds(v1alpha1.IngressOnly)
	})
	m.t = t
	m.leavesNothing()
}

// looksAtTheKey makes the operator look, which it does each minute by itself.
func (m *mesh) looksAtTheKey() {
	m.t.Helper()
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: m.own, Name: "isthmus-ca-root-" + m.name}}
	m.patch(cm, fmt.Sprintf(`{"metadata":{"annotations":{"touched":%q}}}`, m.t.Name()))
}

// event waits for an Event of the topology with these words.
func (m *mesh) event(reason string, words string) {
	m.t.Helper()
	eventually(m.t, "Event "+reason, func() error {
		var list corev1.EventList
		if err := m.admin.List(m.t.Context(), &list); err != nil {
			return err
		}
		var seen []string
		for _, e := range list.Items {
			if e.InvolvedObject.Kind != "MeshTopology" || e.InvolvedObject.Name != m.name {
				continue
			}
			if e.Reason == reason && strings.Contains(e.Message, words) {
				return nil
			}
			seen = append(seen, e.Reason+": "+e.Message)
		}
		return fmt.Errorf("only %q; Ready is %+v", seen, meta.FindStatusCondition(m.get().Status.Conditions, v1alpha1.ConditionReady))
	})
}
