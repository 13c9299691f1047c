// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	admission "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/json"

	"github.com/isthmus-mesh/isthmus/internal/inject"
)

// inject answers for pods. A pod that is left alone is allowed without a patch; one
// that asks for what cannot be is refused with the field and the reason.
func (s *Server) inject(ctx context.Context, path string, req *admission.AdmissionRequest) *admission.AdmissionResponse {
	begin := time.Now()
	s.metrics.injectRequests.Inc()
	defer func() { s.metrics.injectSeconds.Observe(time.Since(begin).Seconds()) }()

	if req.Kind.Kind != "Pod" || req.Kind.Group != "" || req.Operation != admission.Create {
		s.metrics.injectSkipped.Inc()
		return allowed()
	}
	var pod corev1.Pod
	if err := json.Unmarshal(req.Object.Raw, &pod); err != nil {
		s.metrics.injectFailed.Inc()
		return failure(http.StatusBadRequest, metav1.StatusReasonBadRequest, "decode pod: "+err.Error())
	}
	res, patch, err := s.injectPod(ctx, path, req.Namespace, &pod)
	if err != nil {
		s.metrics.injectFailed.Inc()
		s.log.V(1).Info("pod not injected", "namespace", req.Namespace, "pod", nameOf(&pod), "error", err.Error())
		return injectFailure(err)
	}
	s.log.V(2).Info("pod decided", "namespace", req.Namespace, "pod", nameOf(&pod), "reason", res.Decision.Reason)
	out := allowed()
	out.AuditAnnotations = map[string]string{"injection": string(res.Decision.Reason)}
	for _, w := range res.Warnings {
		out.Warnings = append(out.Warnings, "injection: "+w.String())
	}
	if patch == nil {
		s.metrics.injectSkipped.Inc()
		return out
	}
	s.metrics.injectSucceeded.Inc()
	kind := admission.PatchTypeJSONPatch
	out.Patch, out.PatchType = patch, &kind
	return out
}

// namespaceWait bounds the wait for a namespace that is new, well within the
// patience of the API server, so that the answer still arrives.
const namespaceWait = 2 * time.Second

func (s *Server) injectPod(ctx context.Context, path, namespace string, pod *corev1.Pod) (inject.Result, []byte, error) {
	in, err := s.source.Injector()
	if err != nil {
		return inject.Result{}, nil, fmt.Errorf("injection is not configured: %w", err)
	}
	lookup, cancel := context.WithTimeout(ctx, namespaceWait)
	defer cancel()
	labels, err := s.source.NamespaceLabels(lookup, namespace)
	if err != nil {
		return inject.Result{}, nil, fmt.Errorf("labels of namespace %s: %w", namespace, err)
	}
	request := inject.Request{Pod: pod, Namespace: inject.Namespace{Name: namespace, Labels: labels}}
	parameters(path, &request)
	res, err := in.Inject(request)
	if err != nil || res.Pod == nil {
		return res, nil, err
	}
	patch, err := inject.Patch(pod, res.Pod)
	return res, patch, err
}

// parameters reads Istio's pairs behind the path: /inject/cluster/NAME/net/NAME.
// Others are for other injectors and are ignored.
func parameters(path string, r *inject.Request) {
	parts := strings.Split(strings.TrimPrefix(strings.TrimPrefix(path, "/inject"), "/"), "/")
	for i := 0; i+1 < len(parts); i += 2 {
		switch parts[i] {
		case "cluster":
			r.Cluster = parts[i+1]
		case "net":
			r.Network = parts[i+1]
		}
	}
}

// injectFailure tells faults of the pod, which stay until it is changed, from
// those that pass.
func injectFailure(err error) *admission.AdmissionResponse {
	refused := (*inject.RefusedError)(nil)
	if !errors.As(err, &refused) {
		return failure(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "injection: "+err.Error())
	}
	out := failure(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "injection: "+err.Error())
	out.Result.Details = &metav1.StatusDetails{Kind: "pods"}
	for _, f := range refused.Fields {
		out.Result.Details.Causes = append(out.Result.Details.Causes, metav1.StatusCause{
			Type: metav1.CauseTypeFieldValueInvalid, Field: f.Field, Message: f.Reason,
		})
	}
	return out
}

func nameOf(pod *corev1.Pod) string {
	if pod.Name != "" {
		return pod.Name
	}
	return pod.GenerateName
}
