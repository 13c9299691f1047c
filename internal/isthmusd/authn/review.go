// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc/peer"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
)

const (
	// acceptedFor is how long a review is believed: short, because a deleted pod's
	// token must stop working, yet enough for the streams that an agent opens at once.
	acceptedFor = 10 * time.Second
	// refusedFor keeps a proxy that retries a bad token from loading the API server.
	refusedFor = 2 * time.Second
	// maxReviews bounds the cache; a full one is forgotten whole, which costs
	// reviews and nothing else.
	maxReviews = 4096
	// peerReviews bounds the reviews that one peer may have under way: a proxy needs
	// one or two, and who invents tokens gets no more of the API server than that.
	peerReviews = 4
	podNameKey  = "authentication.kubernetes.io/pod-name"
)

// TokenReviews is the part of client-go's authentication client that is used.
type TokenReviews interface {
	Create(ctx context.Context, review *authenticationv1.TokenReview, o metav1.CreateOptions) (*authenticationv1.TokenReview, error)
}

// Reviewer verifies tokens by asking the Kubernetes API server.
type Reviewer struct {
	reviews  TokenReviews
	audience string
	clock    clock.PassiveClock
	flights  singleflight.Group

	mu    sync.Mutex
	cache map[[sha256.Size]byte]reviewed
	// busy counts reviews under way by the address of the peer.
	busy map[string]int
}

type reviewed struct {
	subject Subject
	err     error
	until   time.Time
}

// NewReviewer returns a Verifier over the API server's TokenReview, of tokens for
// one audience. A nil clock is the real one.
func NewReviewer(reviews TokenReviews, audience string, c clock.PassiveClock) *Reviewer {
	if c == nil {
		c = clock.RealClock{}
	}
	return &Reviewer{reviews: reviews, audience: audience, clock: c, cache: map[[sha256.Size]byte]reviewed{}, busy: map[string]int{}}
}

// Verify implements Verifier.
func (r *Reviewer) Verify(ctx context.Context, token string) (Subject, error) {
	if len(token) > maxToken {
		return Subject{}, errors.New("too long")
	}
	key := sha256.Sum256([]byte(token))
	if hit, ok := r.cached(key); ok {
		return hit.subject, hit.err
	}
	from := peerOf(ctx)
	if !r.begin(from) {
		return Subject{}, fmt.Errorf("%w: too many reviews for this peer are under way", ErrUnavailable)
	}
	defer r.end(from)
	// One flight serves every waiting stream, so it must not end with the stream that began it.
	shared := context.WithoutCancel(ctx)
	v, err, _ := r.flights.Do(string(key[:]), func() (any, error) {
		bounded, cancel := context.WithTimeout(shared, 10*time.Second)
		defer cancel()
		s, err := r.review(bounded, token)
		r.remember(key, s, err)
		return s, err
	})
	if err != nil {
		return Subject{}, err
	}
	return v.(Subject), nil
}

// peerOf is the caller's address without its port.
func peerOf(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return p.Addr.String()
	}
	return host
}

func (r *Reviewer) begin(peer string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[peer] >= peerReviews {
		return false
	}
	r.busy[peer]++
	return true
}

func (r *Reviewer) end(peer string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[peer]--; r.busy[peer] == 0 {
		delete(r.busy, peer)
	}
}

func (r *Reviewer) cached(key [sha256.Size]byte) (reviewed, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	hit, ok := r.cache[key]
	return hit, ok && r.clock.Now().Before(hit.until)
}

func (r *Reviewer) remember(key [sha256.Size]byte, s Subject, err error) {
	if errors.Is(err, ErrUnavailable) {
		return
	}
	keep := acceptedFor
	if err != nil {
		keep = refusedFor
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.cache) >= maxReviews {
		clear(r.cache)
	}
	r.cache[key] = reviewed{subject: s, err: err, until: r.clock.Now().Add(keep)}
}

func (r *Reviewer) review(ctx context.Context, token string) (Subject, error) {
	ask := &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{r.audience}},
	}
	answer, err := r.reviews.Create(ctx, ask, metav1.CreateOptions{})
	if err != nil {
		return Subject{}, fmt.Errorf("%w: review by the API server: %w", ErrUnavailable, err)
	}
	st := answer.Status
	if !st.Authenticated {
		// status.error is the API server's own sentence; it does not quote the token.
		return Subject{}, fmt.Errorf("refused by the API server: %s", st.Error)
	}
	// An API server that does not know audiences answers without them.
	if !slices.Contains(st.Audiences, r.audience) {
		return Subject{}, fmt.Errorf("is not for audience %s", r.audience)
	}
	s := Subject{Name: st.User.Username, NotAfter: expiry(token)}
	if pods := st.User.Extra[podNameKey]; len(pods) == 1 {
		s.Pod = pods[0]
	}
	return s, nil
}

// expiry reads when a token ends that the API server has accepted. It bounds
// the life of a connection only, so an unreadable one is no error.
func expiry(token string) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}
	}
	var claims struct {
		Exp int64 `json:"exp"`
	}
	if json.Unmarshal(payload, &claims) != nil || claims.Exp <= 0 {
		return time.Time{}
	}
	return time.Unix(claims.Exp, 0)
}
