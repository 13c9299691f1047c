// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Injection asks for pods' proxies as an API server does.
type Injection struct {
	client *http.Client
	url    string
}

// NewInjection makes a client of a webhook; it keeps its connections.
func NewInjection(addr string, roots *x509.CertPool) *Injection {
	return &Injection{
		url: "https://" + addr + "/inject",
		client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: width,
		}},
	}
}

// width is how many requests may be under way.
const width = 32

// fields and list shorten what a review is written with.
type (
	fields = map[string]any
	list   = []any
)

func review(i int) ([]byte, error) {
	probe := func(path string) fields { return fields{"httpGet": fields{"path": path, "port": 8080}} }
	pod := fields{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": fields{
			"generateName": "app-5d4c-", "namespace": "ns-0", "labels": fields{"app": "app", "version": "v1"},
			"ownerReferences": list{fields{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "app-5d4c", "uid": "1", "controller": true}},
		},
		"spec": fields{"serviceAccountName": "app", "containers": list{fields{
			"name": "app", "image": "app:1", "ports": list{fields{"containerPort": 8080}},
			"readinessProbe": probe("/ready"), "livenessProbe": probe("/live"),
		}}},
	}
	return json.Marshal(fields{
		"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
		"request": fields{
			"uid": fmt.Sprintf("u-%d", i), "namespace": "ns-0", "operation": "CREATE",
			"kind":     fields{"group": "", "version": "v1", "kind": "Pod"},
			"resource": fields{"group": "", "version": "v1", "resource": "pods"}, "object": pod,
		},
	})
}

// Run asks n times, at a rate; an answer without a patch is an error.
func (j *Injection) Run(ctx context.Context, rate float64, n int) (Answers, error) {
	return atRate(ctx, rate, n, width, func(i int) error { return j.ask(ctx, i) })
}

func (j *Injection) ask(ctx context.Context, i int) error {
	body, err := review(i)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, j.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := j.client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var answer struct {
		Response struct {
			UID     string `json:"uid"`
			Allowed bool   `json:"allowed"`
			Patch   []byte `json:"patch"`
			Status  struct {
				Message string `json:"message"`
			} `json:"status"`
		} `json:"response"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	switch a := answer.Response; {
	case !a.Allowed:
		return fmt.Errorf("the pod is refused: %s", a.Status.Message)
	case a.UID != fmt.Sprintf("u-%d", i):
		return fmt.Errorf("the answer is to %s", a.UID)
	case len(a.Patch) == 0:
		return errors.New("the pod is not given a proxy")
	}
	return nil
}
