// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package distribution_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/internal/operator/distribution"
)

// replicas answer by address.
type replicas map[string]func() (*http.Response, error)

func (r replicas) RoundTrip(req *http.Request) (*http.Response, error) {
	if got := req.URL.RequestURI(); got != "/distribution?epoch=e1" {
		return nil, errors.New("asked for " + got)
	}
	return r[req.URL.Host]()
}

func says(code int, body string) func() (*http.Response, error) {
	return func() (*http.Response, error) {
		return &http.Response{StatusCode: code, Status: http.StatusText(code), Body: io.NopCloser(strings.NewReader(body))}, nil
	}
}

func proxy(name, state string) string {
	return `{"namespace":"shop","name":"` + name + `","state":"` + state + `"}`
}

func TestAsk(t *testing.T) {
	a, b, c := distribution.Proxy{Namespace: "shop", Name: "a"}, distribution.Proxy{Namespace: "shop", Name: "b"}, distribution.Proxy{Namespace: "shop", Name: "c"}
	all := []distribution.Proxy{a, b, c}
	tests := map[string]struct {
		replicas    replicas
		wantLagging []distribution.Proxy
		wantErr     error
		wantFailure bool
	}{
		"all follow, over two replicas": {
			replicas: replicas{
				"10.0.0.1:15014": says(200, `{"proxies":[`+proxy("a", "Acknowledged")+","+proxy("b", "Acknowledged")+"]}"),
				"10.0.0.2:15014": says(200, `{"proxies":[`+proxy("c", "Acknowledged")+"]}"),
			},
		},
		"one is behind, one absent": {
			replicas: replicas{
				"10.0.0.1:15014": says(200, `{"proxies":[`+proxy("a", "Acknowledged")+","+proxy("b", "Behind")+"]}"),
				"10.0.0.2:15014": says(200, `{"proxies":[]}`),
			},
			wantLagging: []distribution.Proxy{b, c},
		},
		"one refused what it got": {
			replicas: replicas{
				"10.0.0.1:15014": says(200, `{"proxies":[`+proxy("a", "Rejected")+"]}"),
				"10.0.0.2:15014": says(200, `{"proxies":[`+proxy("b", "Acknowledged")+","+proxy("c", "Acknowledged")+"]}"),
			},
			wantLagging: []distribution.Proxy{a},
		},
		"a version that does not tell": {
			replicas: replicas{"10.0.0.1:15014": says(404, ""), "10.0.0.2:15014": says(404, "")},
			wantErr:  distribution.ErrNotServed,
		},
		"a replica that fails is not passed over": {
			replicas: replicas{
				"10.0.0.1:15014": says(200, `{"proxies":[]}`),
				"10.0.0.2:15014": func() (*http.Response, error) { return nil, errors.New("refused") },
			},
			wantFailure: true,
		},
		"words that are no answer": {
			replicas:    replicas{"10.0.0.1:15014": says(200, "hello"), "10.0.0.2:15014": says(200, "hello")},
			wantFailure: true,
		},
		"an error of the replica": {
			replicas:    replicas{"10.0.0.1:15014": says(500, ""), "10.0.0.2:15014": says(500, "")},
			wantFailure: true,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := distribution.HTTP{Client: &http.Client{Transport: tt.replicas}}
			r, err := h.Ask(context.Background(), []string{"10.0.0.1", "10.0.0.2"}, "e1")
			if tt.wantErr != nil || tt.wantFailure {
				if err == nil || tt.wantErr != nil && !errors.Is(err, tt.wantErr) {
					t.Fatalf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.wantLagging, r.Lagging(all)); diff != "" {
				t.Errorf("lagging (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNobodyToAsk(t *testing.T) {
	if _, err := distribution.New(0).Ask(context.Background(), nil, "e1"); err == nil {
		t.Error("nobody answered, and all is well?")
	}
}
