// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package authn_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/isthmus-mesh/isthmus/internal/identity"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
	"github.com/isthmus-mesh/isthmus/internal/pki"
)

var (
	now  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	cart = identity.SPIFFE{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "cart"}
	far  = &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}
	near = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
)

func key(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func publicPEM(t testing.TB, k *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func newRoot(t testing.TB) *pki.Bundle {
	t.Helper()
	b, err := pki.NewRoot(pki.RootOptions{Organization: "cluster.local", Validity: pki.Validity{Now: now}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func workload(t testing.TB, b *pki.Bundle, id identity.SPIFFE) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key(t))
	if err != nil {
		t.Fatal(err)
	}
	csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	chain, err := b.Sign(csr, id, pki.Validity{Now: now, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	certs, err := pki.ParseCertificates([]byte(chain[0]))
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}

func overTLS(certs ...*x509.Certificate) credentials.AuthInfo {
	return credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: certs}}
}

func TestAuthenticate(t *testing.T) {
	t.Parallel()
	root, stranger, tokenKey := newRoot(t), newRoot(t), key(t)
	verifier, err := authn.NewStaticKey(publicPEM(t, tokenKey), clocktesting.NewFakePassiveClock(now))
	if err != nil {
		t.Fatal(err)
	}
	token := sign(t, tokenKey, authn.Subject{Name: "system:serviceaccount:shop:cart", Pod: "cart-1", NotAfter: now.Add(time.Minute)})
	elsewhere := cart
	elsewhere.TrustDomain = "other.example"
	deleted, unknown := cart, cart
	deleted.ServiceAccount, unknown.ServiceAccount = "deleted", "unknown"
	accounts := map[string]error{"deleted": errors.New("it is gone"), "unknown": authn.ErrUnavailable}
	good := workload(t, root, cart)
	byCert := authn.Caller{Identity: cart, Method: authn.Certificate, NotAfter: good.NotAfter}
	byToken := authn.Caller{Identity: cart, Method: authn.Token, Pod: "cart-1", NotAfter: now.Add(time.Minute)}
	tests := map[string]struct {
		info  credentials.AuthInfo
		addr  net.Addr
		token string
		after time.Duration
		want  authn.Caller
		code  codes.Code
	}{
		"client certificate":                   {info: overTLS(good), addr: far, want: byCert},
		"certificate wins over token":          {info: overTLS(good), addr: far, token: token, want: byCert},
		"token":                                {info: overTLS(), addr: far, token: token, want: byToken},
		"expired certificate, then token":      {info: overTLS(workload(t, stranger, cart)), addr: far, token: token, want: byToken},
		"certificate of another root":          {info: overTLS(workload(t, stranger, cart)), addr: far, code: codes.Unauthenticated},
		"certificate of another trust domain":  {info: overTLS(workload(t, root, elsewhere)), addr: far, code: codes.Unauthenticated},
		"expired certificate":                  {info: overTLS(good), addr: far, after: 2 * time.Hour, code: codes.Unauthenticated},
		"certificate of a deleted account":     {info: overTLS(workload(t, root, deleted)), addr: far, code: codes.Unauthenticated},
		"certificate, accounts not known yet":  {info: overTLS(workload(t, root, unknown)), addr: far, code: codes.Unavailable},
		"deleted account, then token":          {info: overTLS(workload(t, root, deleted)), addr: far, token: token, want: byToken},
		"TLS with nothing":                     {info: overTLS(), addr: near, code: codes.Unauthenticated},
		"garbage token":                        {info: overTLS(), addr: far, token: "a.b.c", code: codes.Unauthenticated},
		"plaintext on loopback is anonymous":   {addr: near, want: authn.Caller{Method: authn.Anonymous}},
		"plaintext on loopback with token":     {addr: near, token: token, want: byToken},
		"plaintext on loopback, bad token":     {addr: near, token: "x", code: codes.Unauthenticated},
		"plaintext from elsewhere":             {addr: far, code: codes.Unauthenticated},
		"plaintext from elsewhere, with token": {addr: far, token: token, code: codes.Unauthenticated},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := authn.New(authn.Options{
				TrustDomain: "cluster.local",
				Roots:       root.Pool,
				Tokens:      verifier,
				Accounts:    func(_ context.Context, id identity.SPIFFE) error { return accounts[id.ServiceAccount] },
				Clock:       clocktesting.NewFakePassiveClock(now.Add(tc.after)),
			})
			ctx := peer.NewContext(t.Context(), &peer.Peer{Addr: tc.addr, AuthInfo: tc.info})
			if tc.token != "" {
				ctx = metadata.NewIncomingContext(ctx, metadata.Pairs("authorization", "Bearer "+tc.token))
			}
			got, err := a.Authenticate(ctx)
			if status.Code(err) != tc.code {
				t.Fatalf("error = %v, want code %v", err, tc.code)
			}
			if err != nil && tc.token != "" && len(tc.token) > 1 && strings.Contains(err.Error(), tc.token) {
				t.Errorf("error quotes the token: %v", err)
			}
			if got.Identity != tc.want.Identity || got.Method != tc.want.Method || got.Pod != tc.want.Pod || !got.NotAfter.Equal(tc.want.NotAfter) {
				t.Errorf("caller = %+v, want %+v", got, tc.want)
			}
		})
	}
}

func sign(t testing.TB, k *ecdsa.PrivateKey, s authn.Subject) string {
	t.Helper()
	token, err := authn.SignStatic(k, s)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestStaticKeyRefuses(t *testing.T) {
	t.Parallel()
	mine := key(t)
	v, err := authn.NewStaticKey(publicPEM(t, mine), clocktesting.NewFakePassiveClock(now))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{
		"another key":   sign(t, key(t), authn.Subject{Name: "system:serviceaccount:a:b", NotAfter: now.Add(time.Hour)}),
		"expired":       sign(t, mine, authn.Subject{Name: "system:serviceaccount:a:b", NotAfter: now.Add(-time.Hour)}),
		"algorithm off": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.",
		"too long":      strings.Repeat("a", 20<<10),
	}
	for name, token := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if s, err := v.Verify(t.Context(), token); err == nil {
				t.Errorf("accepted as %+v", s)
			}
		})
	}
}

// reviews is an API server's TokenReview endpoint with one answer.
type reviews struct {
	asked  atomic.Int32
	status authenticationv1.TokenReviewStatus
	err    error
}

func (r *reviews) Create(_ context.Context, in *authenticationv1.TokenReview, _ metav1.CreateOptions) (*authenticationv1.TokenReview, error) {
	r.asked.Add(1)
	out := in.DeepCopy()
	out.Status = r.status
	return out, r.err
}

func TestReviewer(t *testing.T) {
	t.Parallel()
	user := authenticationv1.UserInfo{
		Username: "system:serviceaccount:shop:cart",
		Extra:    map[string]authenticationv1.ExtraValue{"authentication.kubernetes.io/pod-name": {"cart-1"}},
	}
	tests := map[string]struct {
		status      authenticationv1.TokenReviewStatus
		err         error
		want        authn.Subject
		wantErr     bool
		unavailable bool
		wantAsked   int32
	}{
		"accepted, asked once": {
			status:    authenticationv1.TokenReviewStatus{Authenticated: true, User: user, Audiences: []string{authn.Audience}},
			want:      authn.Subject{Name: user.Username, Pod: "cart-1"},
			wantAsked: 1,
		},
		"without our audience": {
			status:  authenticationv1.TokenReviewStatus{Authenticated: true, User: user},
			wantErr: true, wantAsked: 1,
		},
		"refused": {
			status:  authenticationv1.TokenReviewStatus{Error: "token has been invalidated"},
			wantErr: true, wantAsked: 1,
		},
		"API server away: asked again": {err: errors.New("connection refused"), wantErr: true, unavailable: true, wantAsked: 2},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := &reviews{status: tc.status, err: tc.err}
			r := authn.NewReviewer(api, authn.Audience, clocktesting.NewFakePassiveClock(now))
			for range 2 {
				got, err := r.Verify(t.Context(), "tok")
				if (err != nil) != tc.wantErr || errors.Is(err, authn.ErrUnavailable) != tc.unavailable {
					t.Fatalf("error = %v", err)
				}
				if got != tc.want {
					t.Errorf("subject = %+v, want %+v", got, tc.want)
				}
			}
			if got := api.asked.Load(); got != tc.wantAsked {
				t.Errorf("asked %d times, want %d", got, tc.wantAsked)
			}
		})
	}
}

func TestReviewerForgets(t *testing.T) {
	t.Parallel()
	api := &reviews{status: authenticationv1.TokenReviewStatus{
		Authenticated: true, Audiences: []string{authn.Audience},
		User: authenticationv1.UserInfo{Username: "system:serviceaccount:shop:cart"},
	}}
	c := clocktesting.NewFakePassiveClock(now)
	r := authn.NewReviewer(api, authn.Audience, c)
	for _, step := range []time.Duration{0, 5 * time.Second, 11 * time.Second} {
		c.SetTime(now.Add(step))
		if _, err := r.Verify(t.Context(), "tok"); err != nil {
			t.Fatal(err)
		}
	}
	if got := api.asked.Load(); got != 2 {
		t.Errorf("asked %d times, want 2: a review is believed for 10 s", got)
	}
}

func FuzzStaticKey(f *testing.F) {
	k := key(f)
	v, err := authn.NewStaticKey(publicPEM(f, k), clocktesting.NewFakePassiveClock(now))
	if err != nil {
		f.Fatal(err)
	}
	other := key(f)
	f.Add(sign(f, other, authn.Subject{Name: "system:serviceaccount:a:b", NotAfter: now.Add(time.Hour)}))
	f.Fuzz(func(t *testing.T, token string) {
		if s, err := v.Verify(t.Context(), token); err == nil {
			t.Errorf("accepted %q as %+v", token, s)
		}
	})
}

// slowReviews answer when they are let.
type slowReviews struct {
	asked   chan string
	release chan struct{}
}

func (r *slowReviews) Create(_ context.Context, in *authenticationv1.TokenReview, _ metav1.CreateOptions) (*authenticationv1.TokenReview, error) {
	r.asked <- in.Spec.Token
	<-r.release
	out := in.DeepCopy()
	out.Status = authenticationv1.TokenReviewStatus{
		Authenticated: true, Audiences: []string{authn.Audience},
		User: authenticationv1.UserInfo{Username: "system:serviceaccount:shop:cart"},
	}
	return out, nil
}

func TestOnePeerMayNotFloodTheAPIServer(t *testing.T) {
	t.Parallel()
	api := &slowReviews{asked: make(chan string), release: make(chan struct{})}
	r := authn.NewReviewer(api, authn.Audience, nil)
	from := func(addr net.Addr) context.Context { return peer.NewContext(t.Context(), &peer.Peer{Addr: addr}) }
	results := make(chan error, 8)
	ask := func(addr net.Addr, token string) {
		go func() {
			_, err := r.Verify(from(addr), token)
			results <- err
		}()
		<-api.asked
	}
	for i := range 4 {
		ask(far, "token "+string(rune('a'+i)))
	}
	if _, err := r.Verify(from(far), "one more"); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("a fifth review at once: %v, want it put off", err)
	}
	ask(near, "of another peer")
	close(api.release)
	for range 5 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	go func() { <-api.asked }()
	if _, err := r.Verify(from(far), "one more"); err != nil {
		t.Errorf("after the others: %v", err)
	}
}
