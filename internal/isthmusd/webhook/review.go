// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"runtime/debug"

	admission "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxBody is more than two objects of the size that etcd takes, with room for the
// review around them.
const maxBody = 8 << 20

// answerer decides about one request. It must not fail: what goes wrong is said in
// the response. The path is the URL's.
type answerer func(ctx context.Context, path string, req *admission.AdmissionRequest) *admission.AdmissionResponse

// requestError is a client's fault, told by an HTTP status.
type requestError struct {
	code int
	text string
}

func (e *requestError) Error() string { return e.text }

// admission wraps an answerer into HTTP: review in, review out.
func (s *Server) admission(answer answerer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, err := readReview(w, r)
		if err != nil {
			s.metrics.malformed.Inc()
			code := http.StatusBadRequest
			if re := (*requestError)(nil); errors.As(err, &re) {
				code = re.code
			}
			http.Error(w, err.Error(), code)
			return
		}
		res := s.guarded(r, answer, req)
		res.UID = req.UID
		review := admission.AdmissionReview{
			TypeMeta: metav1.TypeMeta{APIVersion: admission.SchemeGroupVersion.String(), Kind: "AdmissionReview"},
			Response: res,
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(review); err != nil {
			s.log.V(1).Info("admission response not delivered", "uid", req.UID, "error", err.Error())
		}
	})
}

// guarded turns a panic into a refusal: whatever the policy of the webhook
// configuration, the client gets an answer that says what happened.
func (s *Server) guarded(r *http.Request, answer answerer, req *admission.AdmissionRequest) (res *admission.AdmissionResponse) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error(fmt.Errorf("panic: %v", p), "admission failed", "uid", req.UID, "path", r.URL.Path, "stack", string(debug.Stack()))
			res = failure(http.StatusInternalServerError, metav1.StatusReasonInternalError, "internal error; see the control plane's log")
		}
	}()
	return answer(r.Context(), r.URL.Path, req)
}

func readReview(w http.ResponseWriter, r *http.Request) (*admission.AdmissionRequest, error) {
	if r.Method != http.MethodPost {
		return nil, &requestError{http.StatusMethodNotAllowed, "only POST is answered here"}
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return nil, &requestError{http.StatusUnsupportedMediaType, "the content type must be application/json"}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, &requestError{http.StatusRequestEntityTooLarge, fmt.Sprintf("the review is larger than %d bytes", maxBody)}
	}
	if err != nil {
		return nil, fmt.Errorf("read admission review: %w", err)
	}
	return decodeReview(body)
}

func decodeReview(body []byte) (*admission.AdmissionRequest, error) {
	var review admission.AdmissionReview
	if err := json.Unmarshal(body, &review); err != nil {
		return nil, fmt.Errorf("decode admission review: %w", err)
	}
	if review.APIVersion != admission.SchemeGroupVersion.String() || review.Kind != "AdmissionReview" {
		return nil, fmt.Errorf("got %s %s, want %s AdmissionReview", review.APIVersion, review.Kind, admission.SchemeGroupVersion)
	}
	if review.Request == nil || review.Request.UID == "" {
		return nil, errors.New("the review holds no request with a uid")
	}
	return review.Request, nil
}

func allowed() *admission.AdmissionResponse { return &admission.AdmissionResponse{Allowed: true} }

func failure(code int32, reason metav1.StatusReason, message string) *admission.AdmissionResponse {
	return &admission.AdmissionResponse{Result: &metav1.Status{
		Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message,
	}}
}
