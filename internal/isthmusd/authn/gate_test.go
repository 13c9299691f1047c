// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package authn_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
)

// verifier knows the tokens of two accounts, and one that it cannot ask about.
type verifier struct{}

func (verifier) Verify(_ context.Context, token string) (authn.Subject, error) {
	switch token {
	case "operator", "other":
		return authn.Subject{Name: "system:serviceaccount:ops:" + token}, nil
	case "later":
		return authn.Subject{}, fmt.Errorf("%w: no route", authn.ErrUnavailable)
	case "nameless":
		return authn.Subject{}, nil
	}
	return authn.Subject{}, errors.New("unknown")
}

func TestGate(t *testing.T) {
	t.Parallel()
	const operator = "system:serviceaccount:ops:operator"
	tests := map[string]struct {
		subject, header string
		wantCode        int
		want            string
	}{
		"the account that may":            {operator, "Bearer operator", 200, "inside"},
		"another scheme's spelling":       {operator, "bearer operator", 200, "inside"},
		"no token":                        {operator, "", 401, "no bearer token"},
		"a password":                      {operator, "Basic operator", 401, "no bearer token"},
		"a token that is refused":         {operator, "Bearer forged", 401, "token: unknown"},
		"another account":                 {operator, "Bearer other", 403, "system:serviceaccount:ops:other may not ask this"},
		"a token that cannot be reviewed": {operator, "Bearer later", 503, "no route"},
		"a gate that names nobody":        {"", "Bearer nameless", 403, "may not ask this"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := authn.Gate{Tokens: verifier{}, Subject: tt.subject}
			h := g.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "inside") }))
			r := httptest.NewRequest(http.MethodGet, "/distribution", nil)
			r.Header.Set("Authorization", tt.header)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.wantCode || !strings.Contains(w.Body.String(), tt.want) {
				t.Errorf("got %d %q, want %d %q", w.Code, w.Body, tt.wantCode, tt.want)
			}
			if strings.Contains(w.Body.String(), "inside") != (tt.wantCode == http.StatusOK) {
				t.Errorf("%d shows %q", w.Code, w.Body)
			}
			if asks := w.Header().Get("WWW-Authenticate") != ""; asks != (tt.wantCode == http.StatusUnauthorized) {
				t.Errorf("%d with WWW-Authenticate %q", w.Code, w.Header().Get("WWW-Authenticate"))
			}
		})
	}
}
