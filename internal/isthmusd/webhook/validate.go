// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	admission "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/internal/validate"
)

// validate answers for Istio's objects. Kinds without rules are allowed, and so is
// every deletion.
func (s *Server) validate(_ context.Context, _ string, req *admission.AdmissionRequest) *admission.AdmissionResponse {
	if req.Operation != admission.Create && req.Operation != admission.Update {
		return allowed()
	}
	if !known(req.Kind) {
		return allowed()
	}
	labels := prometheus.Labels{"group": req.Kind.Group, "version": req.Kind.Version, "resource": resourceOf(req.Kind.Kind)}
	var object struct {
		Spec json.RawMessage `json:"spec"`
	}
	if err := json.Unmarshal(req.Object.Raw, &object); err != nil {
		s.metrics.validationFailed.With(labels).Inc()
		return failure(http.StatusBadRequest, metav1.StatusReasonBadRequest, "decode "+req.Kind.Kind+": "+err.Error())
	}
	report := validate.Check(validate.Object{
		Kind: req.Kind.Kind, Namespace: req.Namespace, Spec: object.Spec,
	}, s.source.Rules())
	res := allowed()
	if err := report.Err(); err != nil {
		s.metrics.validationFailed.With(labels).Inc()
		res = failure(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, err.Error())
		res.Result.Details = details(req, report.Refused)
	} else {
		s.metrics.validationPassed.With(labels).Inc()
	}
	for _, w := range report.Warned {
		res.Warnings = append(res.Warnings, w.String())
	}
	return res
}

// known keeps kinds of other groups that share a name (Gateway API's Gateway) away
// from the rules, and metrics from labels that a client could invent.
func known(k metav1.GroupVersionKind) bool {
	switch k.Version {
	case "v1", "v1beta1", "v1alpha3":
	default:
		return false
	}
	group := "networking.istio.io"
	if k.Kind == "PeerAuthentication" {
		group = "security.istio.io"
	}
	if k.Group != group {
		return false
	}
	for _, kind := range validate.Kinds() {
		if kind == k.Kind {
			return true
		}
	}
	return false
}

// resourceOf is the resource of a known kind. It does not come from the request, for
// whoever reaches the port could fill it in at will.
func resourceOf(kind string) string {
	if stem, ok := strings.CutSuffix(strings.ToLower(kind), "y"); ok {
		return stem + "ies"
	}
	return strings.ToLower(kind) + "s"
}

func details(req *admission.AdmissionRequest, problems []validate.Problem) *metav1.StatusDetails {
	d := &metav1.StatusDetails{Name: req.Name, Group: req.Kind.Group, Kind: req.Kind.Kind}
	for _, p := range problems {
		d.Causes = append(d.Causes, metav1.StatusCause{
			Type: metav1.CauseTypeFieldValueInvalid, Field: p.Field, Message: p.String(),
		})
	}
	return d
}
