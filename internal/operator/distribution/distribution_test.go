// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package distribution_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/internal/operator/distribution"
	"github.com/isthmus-mesh/isthmus/internal/pki"
)

const controlPlane = "isthmusd-default.isthmus-system.svc"

func newRoot(t *testing.T) *pki.Bundle {
	t.Helper()
	root, err := pki.NewRoot(pki.RootOptions{Organization: "cluster.local", Validity: pki.Validity{Now: time.Now()}})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// replica answers over TLS, under the name given; it returns its address.
func replica(t *testing.T, root *pki.Bundle, name string, answer http.HandlerFunc) string {
	t.Helper()
	cert, err := root.IssueServing(pki.ServingOptions{DNSNames: []string{name}, Validity: pki.Validity{Now: time.Now(), TTL: time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(answer)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS12}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// says answers to the operator's question alone.
func says(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RequestURI() != "/distribution?epoch=e1" || r.Header.Get("Authorization") != "Bearer the operator's" {
			http.Error(w, "asked otherwise", http.StatusForbidden)
			return
		}
		fmt.Fprint(w, body)
	}
}

func fails(code int, why string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, why, code) }
}

func proxy(name, state string) string {
	return `{"namespace":"shop","name":"` + name + `","state":"` + state + `"}`
}

func client(t *testing.T) distribution.Client {
	t.Helper()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("the operator's\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return distribution.Client{Token: token, Timeout: time.Minute}
}

func TestAsk(t *testing.T) {
	t.Parallel()
	a, b, c := distribution.Proxy{Namespace: "shop", Name: "a"}, distribution.Proxy{Namespace: "shop", Name: "b"}, distribution.Proxy{Namespace: "shop", Name: "c"}
	root := newRoot(t)
	tests := map[string]struct {
		replicas    []http.HandlerFunc
		wantLagging []distribution.Proxy
		wantErr     string
	}{
		"all follow, over two replicas": {
			replicas: []http.HandlerFunc{
				says(`{"proxies":[` + proxy("a", "Acknowledged") + "," + proxy("b", "Acknowledged") + "]}"),
				says(`{"proxies":[` + proxy("c", "Acknowledged") + "]}"),
			},
		},
		"one is behind, one absent": {
			replicas: []http.HandlerFunc{
				says(`{"proxies":[` + proxy("a", "Acknowledged") + "," + proxy("b", "Behind") + "]}"),
				says(`{"proxies":[]}`),
			},
			wantLagging: []distribution.Proxy{b, c},
		},
		"one refused what it got": {
			replicas: []http.HandlerFunc{
				says(`{"proxies":[` + proxy("a", "Rejected") + "]}"),
				says(`{"proxies":[` + proxy("b", "Acknowledged") + "," + proxy("c", "Acknowledged") + "]}"),
			},
			wantLagging: []distribution.Proxy{a},
		},
		"a replica that fails is not passed over": {
			replicas: []http.HandlerFunc{says(`{"proxies":[]}`), fails(500, "broken")},
			wantErr:  "500 Internal Server Error: broken",
		},
		"a replica that knows another operator": {
			replicas: []http.HandlerFunc{fails(403, "you may not ask this")},
			wantErr:  "403 Forbidden: you may not ask this",
		},
		"a replica that does not tell is no replica that knows of none": {
			replicas: []http.HandlerFunc{fails(404, "no such page")},
			wantErr:  "404 Not Found",
		},
		"words that are no answer": {replicas: []http.HandlerFunc{says("hello")}, wantErr: "read the answer"},
		"nobody to ask":            {wantErr: "no replica"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			of := distribution.ControlPlane{Name: controlPlane, Root: root.RootPEM()}
			for _, h := range tt.replicas {
				of.Replicas = append(of.Replicas, replica(t, root, controlPlane, h))
			}
			r, err := client(t).Ask(t.Context(), of, "e1")
			wantError(t, err, tt.wantErr)
			if err != nil {
				return
			}
			if diff := cmp.Diff(tt.wantLagging, r.Lagging([]distribution.Proxy{a, b, c})); diff != "" {
				t.Errorf("lagging (-want +got):\n%s", diff)
			}
		})
	}
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Fatalf("got error %v, want %q", err, want)
	}
}

// The token must not reach whoever happens to have the address.
func TestOnlyTheControlPlaneIsAsked(t *testing.T) {
	t.Parallel()
	root := newRoot(t)
	tests := map[string]struct {
		change  func(*distribution.ControlPlane)
		token   string
		wantErr string
	}{
		"a CA of somebody else":     {change: func(c *distribution.ControlPlane) { c.Root = newRoot(t).RootPEM() }, wantErr: "signed by unknown authority"},
		"a name of somebody else":   {change: func(c *distribution.ControlPlane) { c.Name = "isthmusd-other.isthmus-system.svc" }, wantErr: "not isthmusd-other"},
		"no root that can be read":  {change: func(c *distribution.ControlPlane) { c.Root = nil }, wantErr: "root certificate"},
		"no token that can be read": {token: "/nowhere", wantErr: "read the token"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := replica(t, root, controlPlane, func(http.ResponseWriter, *http.Request) { t.Error("was asked") })
			of := distribution.ControlPlane{Name: controlPlane, Root: root.RootPEM(), Replicas: []string{addr}}
			if tt.change != nil {
				tt.change(&of)
			}
			c := client(t)
			if tt.token != "" {
				c.Token = tt.token
			}
			_, err := c.Ask(t.Context(), of, "e1")
			wantError(t, err, tt.wantErr)
		})
	}
}
