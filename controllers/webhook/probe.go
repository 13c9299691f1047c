// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	admission "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// TLS is a Prober that asks as the API server will: an AdmissionReview over TLS, to
// the Service's name, trusting only the root.
type TLS struct{ Timeout time.Duration }

// probeUID comes back in the answer.
const probeUID = types.UID("isthmus-operator-probe")

// Probe asks the webhook at host to inject a pod of a namespace that is never
// injected, so that the answer costs nothing and changes nothing.
func (t TLS) Probe(ctx context.Context, host, namespace string, root []byte) error {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(root) {
		return errors.New("the root certificate cannot be read")
	}
	body, err := probeReview(namespace)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+host+"/inject", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	c := http.Client{Timeout: t.Timeout, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
	}}
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("POST /inject: %s", res.Status)
	}
	var review admission.AdmissionReview
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&review); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if review.Response == nil || review.Response.UID != probeUID {
		return errors.New("the answer is no AdmissionReview for the probe")
	}
	if !review.Response.Allowed {
		return fmt.Errorf("the probe was refused: %s", review.Response.Result.String())
	}
	return nil
}

func probeReview(namespace string) ([]byte, error) {
	pod, err := json.Marshal(corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: "isthmus-probe", Namespace: namespace},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "probe", Image: "probe"}}},
	})
	if err != nil {
		return nil, fmt.Errorf("marshal the probe: %w", err)
	}
	return json.Marshal(admission.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admission.AdmissionRequest{
			UID:       probeUID,
			Kind:      metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
			Resource:  metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			Name:      "isthmus-probe",
			Namespace: namespace,
			Operation: admission.Create,
			Object:    runtime.RawExtension{Raw: pod},
		},
	})
}
