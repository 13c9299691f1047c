// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	admission "k8s.io/api/admission/v1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/pki"
)

func root(t *testing.T) *pki.Bundle {
	t.Helper()
	b, err := pki.NewRoot(pki.RootOptions{Organization: "cluster.local", Validity: pki.Validity{Now: time.Now()}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestProbe(t *testing.T) {
	ca := root(t)
	answer := func(change func(*admission.AdmissionResponse)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			var review admission.AdmissionReview
			if err := json.NewDecoder(r.Body).Decode(&review); err != nil || r.URL.Path != "/inject" || review.Request.Namespace != "isthmus-system" {
				http.Error(w, "no probe", http.StatusBadRequest)
				return
			}
			review.Response = &admission.AdmissionResponse{UID: review.Request.UID, Allowed: true}
			change(review.Response)
			review.Request = nil
			_ = json.NewEncoder(w).Encode(review)
		}
	}
	tests := map[string]struct {
		handler http.HandlerFunc
		root    []byte
		wantErr string
	}{
		"an answer": {handler: answer(func(*admission.AdmissionResponse) {}), root: ca.RootPEM()},
		"an answer to somebody else": {
			handler: answer(func(r *admission.AdmissionResponse) { r.UID = "other" }), root: ca.RootPEM(), wantErr: "no AdmissionReview for the probe",
		},
		"a refusal": {
			handler: answer(func(r *admission.AdmissionResponse) {
				r.Allowed, r.Result = false, &metav1.Status{Message: "not configured"}
			}), root: ca.RootPEM(), wantErr: "not configured",
		},
		"words":               {handler: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) }, root: ca.RootPEM(), wantErr: "read the answer"},
		"an error":            {handler: http.NotFound, root: ca.RootPEM(), wantErr: "404"},
		"another root":        {handler: answer(func(*admission.AdmissionResponse) {}), root: root(t).RootPEM(), wantErr: "certificate"},
		"no root that is one": {handler: answer(func(*admission.AdmissionResponse) {}), root: []byte("x"), wantErr: "cannot be read"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cert, err := ca.IssueServing(pki.ServingOptions{IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Validity: pki.Validity{Now: time.Now(), TTL: time.Hour}})
			if err != nil {
				t.Fatal(err)
			}
			s := httptest.NewUnstartedServer(tt.handler)
			s.TLS = &tls.Config{Certificates: []tls.Certificate{*cert}}
			s.StartTLS()
			defer s.Close()
			err = TLS{Timeout: 5 * time.Second}.Probe(t.Context(), s.Listener.Addr().String(), "isthmus-system", tt.root)
			if tt.wantErr == "" && err != nil || tt.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tt.wantErr)) {
				t.Errorf("want %q, got %v", tt.wantErr, err)
			}
		})
	}
}

func TestConfigurationsCoverMembersAndNobodyElse(t *testing.T) {
	m := &v1alpha1.MeshTopology{ObjectMeta: metav1.ObjectMeta{Name: "default", UID: "u"}}
	m.Spec.Namespace = "isthmus-system"
	f := Facts{Mesh: m, Never: []string{"isthmus-operator", "isthmus-system"}, Root: []byte("root")}
	injector, validator := Injector(f), Validator(f)
	if len(injector.Webhooks) != 2 || len(validator.Webhooks) != 3 {
		t.Fatalf("%d entries for injection, %d for validation", len(injector.Webhooks), len(validator.Webhooks))
	}
	for _, w := range injector.Webhooks {
		if *w.FailurePolicy != admissionv1.Fail || *w.ReinvocationPolicy != admissionv1.IfNeededReinvocationPolicy || *w.TimeoutSeconds != 5 {
			t.Errorf("%s: %+v", w.Name, w)
		}
		if len(w.NamespaceSelector.MatchLabels) == 0 || len(w.MatchConditions) != 1 {
			t.Errorf("%s covers %v under %v", w.Name, w.NamespaceSelector, w.MatchConditions)
		}
		excluded := w.NamespaceSelector.MatchExpressions[len(w.NamespaceSelector.MatchExpressions)-1].Values
		if got := strings.Join(excluded, " "); !strings.Contains(got, "kube-system") || !strings.Contains(got, "isthmus-operator") || !strings.Contains(got, "isthmus-system") {
			t.Errorf("%s leaves out only %s", w.Name, got)
		}
	}
	for _, w := range validator.Webhooks {
		if len(w.NamespaceSelector.MatchLabels) == 0 {
			t.Errorf("%s covers the whole cluster", w.Name)
		}
	}
	if m.Spec.Members.NamespaceSelectors != nil {
		t.Error("rendering changed the spec")
	}
}
