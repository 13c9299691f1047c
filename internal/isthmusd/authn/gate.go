// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"

	"google.golang.org/grpc/peer"
)

// Gate lets one account through to an HTTP handler, by its bearer token. Whoever
// cannot be judged is not let in.
type Gate struct {
	Tokens Verifier
	// Subject that may enter: system:serviceaccount:<namespace>:<account>.
	Subject string
}

// Handler returns next behind the gate.
func (g Gate) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if code, why := g.judge(r); code != http.StatusOK {
			if code == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", "Bearer")
			}
			http.Error(w, why, code)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (g Gate) judge(r *http.Request) (code int, why string) {
	token, given := bearerOf(r.Header.Values("Authorization"))
	if !given {
		return http.StatusUnauthorized, "not authenticated: no bearer token"
	}
	// Reviews under way are bounded by peer.
	ctx := r.Context()
	if addr, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		ctx = peer.NewContext(ctx, &peer.Peer{Addr: net.TCPAddrFromAddrPort(addr)})
	}
	s, err := g.Tokens.Verify(ctx, token)
	switch {
	case errors.Is(err, ErrUnavailable):
		return http.StatusServiceUnavailable, err.Error()
	case err != nil:
		return http.StatusUnauthorized, "not authenticated: token: " + err.Error()
	case g.Subject == "" || s.Name != g.Subject:
		return http.StatusForbidden, fmt.Sprintf("%s may not ask this, only %s", s.Name, g.Subject)
	}
	return http.StatusOK, ""
}
