// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	admission "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func objectReview(group, version, kind, object string) admission.AdmissionReview {
	return admission.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admission.AdmissionRequest{
			UID: "u-1", Kind: metav1.GroupVersionKind{Group: group, Version: version, Kind: kind},
			Namespace: "shop", Operation: admission.Create, Object: runtime.RawExtension{Raw: []byte(object)},
		},
	}
}

const metadataService = `{"spec":{"hosts":["a.example.com"],"ports":[{"number":80,"name":"http","protocol":"HTTP"}],` +
	`"resolution":"STATIC","endpoints":[{"address":"169.254.169.254"}]}}`

func TestValidateAnswers(t *testing.T) {
	t.Parallel()
	const group = "networking.istio.io"
	for name, tc := range map[string]struct {
		review      admission.AdmissionReview
		operation   admission.Operation
		wantAllowed bool
		wantField   string
		wantWarning string
	}{
		"good object passes": {
			review:      objectReview("security.istio.io", "v1", "PeerAuthentication", `{"spec":{"mtls":{"mode":"STRICT"}}}`),
			wantAllowed: true,
		},
		"object without spec is judged as an empty one": {
			review: objectReview(group, "v1", "Gateway", `{}`), wantField: "spec.servers", wantWarning: "spec.selector: ",
		},
		"tenant's way to the metadata service is refused": {
			review: objectReview(group, "v1beta1", "ServiceEntry", metadataService), wantField: "spec.endpoints[0].address",
		},
		"root namespace may": {
			review: func() admission.AdmissionReview {
				r := objectReview(group, "v1beta1", "ServiceEntry", metadataService)
				r.Request.Namespace = "isthmus-system"
				return r
			}(),
			wantAllowed: true,
		},
		"update is judged": {
			review: objectReview(group, "v1alpha3", "Gateway", `{}`), operation: admission.Update,
			wantField: "spec.servers", wantWarning: "spec.selector: ",
		},
		"deletion passes": {
			review: objectReview(group, "v1", "Gateway", `null`), operation: admission.Delete, wantAllowed: true,
		},
		"Gateway of another group passes": {
			review: objectReview("gateway.networking.k8s.io", "v1", "Gateway", `{}`), wantAllowed: true,
		},
		"kind without rules passes": {
			review: objectReview(group, "v1alpha3", "EnvoyFilter", `{}`), wantAllowed: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tc.operation != "" {
				tc.review.Request.Operation = tc.operation
			}
			got, code := post(t, newServer(t, newWorld(t)).Handler(), "/validate/whatever", tc.review)
			if code != http.StatusOK || got.Allowed != tc.wantAllowed {
				t.Fatalf("status %d, allowed %v, result %+v", code, got.Allowed, got.Result)
			}
			if !tc.wantAllowed {
				if got.Result.Code != http.StatusUnprocessableEntity || got.Result.Details.Causes[0].Field != tc.wantField {
					t.Errorf("result %+v, want a cause in %s", got.Result, tc.wantField)
				}
			}
			if warnings := strings.Join(got.Warnings, "\n"); !strings.HasPrefix(warnings, tc.wantWarning) || (tc.wantWarning == "") != (warnings == "") {
				t.Errorf("warnings %q, want %q", warnings, tc.wantWarning)
			}
		})
	}
}

func TestValidationIsCountedUnderNamesThatNoClientChooses(t *testing.T) {
	t.Parallel()
	s := newServer(t, newWorld(t))
	review := objectReview("networking.istio.io", "v1", "ServiceEntry", metadataService)
	review.Request.Resource = metav1.GroupVersionResource{Group: "x", Version: "y", Resource: "z"}
	post(t, s.Handler(), "/validate", review)
	got := testutil.ToFloat64(s.metrics.validationFailed.WithLabelValues("networking.istio.io", "v1", "serviceentries"))
	if got != 1 || testutil.CollectAndCount(s.metrics.validationFailed) != 1 {
		t.Errorf("galley_validation_failed is %v", got)
	}
}
