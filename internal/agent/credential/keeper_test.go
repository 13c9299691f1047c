// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package credential

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/isthmus-mesh/isthmus/internal/identity"
	"github.com/isthmus-mesh/isthmus/internal/pki"
)

// issuer signs with a bundle that the test may change, unless it's told to fail.
type issuer struct {
	bundle *pki.Bundle
	calls  chan *Certificate // the certificate that was shown
	answer chan error
}

func (i *issuer) Issue(_ context.Context, before *Certificate, now time.Time) (*Certificate, error) {
	i.calls <- before
	if err := <-i.answer; err != nil {
		return nil, err
	}
	key, csr, err := newRequest("")
	if err != nil {
		return nil, err
	}
	chain, err := i.bundle.Sign(csr, identity.SPIFFE{TrustDomain: "t", Namespace: "n", ServiceAccount: "s"}, pki.Validity{Now: now, TTL: time.Hour})
	if err != nil {
		return nil, err
	}
	return newCertificate(key, chain)
}

// kept is a Keeper that runs, with all that drives it.
type kept struct {
	clock  *clocktesting.FakeClock
	issuer *issuer
	states chan State
	roots  string
}

func keep(t *testing.T) *kept {
	t.Helper()
	now := time.Now()
	k := &kept{
		clock:  clocktesting.NewFakeClock(now),
		issuer: &issuer{bundle: newRoot(t, now), calls: make(chan *Certificate), answer: make(chan error)},
		states: make(chan State, 10),
		roots:  filepath.Join(t.TempDir(), "root-cert.pem"),
	}
	must(t, os.WriteFile(k.roots, k.issuer.bundle.RootPEM(), 0o600))
	keeper := &Keeper{
		Issuer: k.issuer, RootFile: k.roots, Clock: k.clock, Log: testr.New(t),
		Changed: func(s State) { k.states <- s },
		Jitter:  func() float64 { return 0.5 },
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- keeper.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-ended)
	})
	return k
}

func newRoot(t *testing.T, now time.Time) *pki.Bundle {
	t.Helper()
	b, err := pki.NewRoot(pki.RootOptions{Organization: "t", Validity: pki.Validity{Now: now}})
	must(t, err)
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// settled returns the next state whose certificate is there; the file of roots may
// be read before or after it.
func (k *kept) settled(t *testing.T, want func(State) bool) State {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case s := <-k.states:
			if want(s) {
				return s
			}
		case <-deadline:
			t.Fatal("no such state")
		}
	}
}

// pass lets time go by until the issuer is asked, and answers.
func (k *kept) pass(t *testing.T, step time.Duration, limit int, answer error) (*Certificate, time.Duration) {
	t.Helper()
	start := k.clock.Now()
	for range limit {
		select {
		case c := <-k.issuer.calls:
			k.issuer.answer <- answer
			return c, k.clock.Since(start)
		case <-time.After(time.Millisecond):
			k.clock.Step(step)
		}
	}
	t.Fatalf("no request within %s", k.clock.Since(start))
	return nil, 0
}

func TestKeeperRenewsAtHalfLife(t *testing.T) {
	t.Parallel()
	k := keep(t)
	if before, _ := k.pass(t, 0, 5000, nil); before != nil {
		t.Error("showed a certificate before there was one")
	}
	first := k.settled(t, func(s State) bool { return s.Certificate != nil })
	before, after := k.pass(t, 10*time.Second, 5000, nil)
	if before != first.Certificate {
		t.Error("did not show the certificate before")
	}
	if after < 25*time.Minute || after > 40*time.Minute {
		t.Errorf("renewed after %s, want about 30 min", after)
	}
	k.settled(t, func(s State) bool { return s.Certificate != first.Certificate })
}

func TestKeeperTriesAgainLaterAndLater(t *testing.T) {
	t.Parallel()
	k := keep(t)
	var waits []time.Duration
	for range 4 {
		_, w := k.pass(t, 10*time.Millisecond, 5000, errors.New("no CA"))
		waits = append(waits, w)
	}
	k.pass(t, 10*time.Millisecond, 5000, nil)
	k.settled(t, func(s State) bool { return s.Certificate != nil })
	if waits[3] < 2*waits[1] {
		t.Errorf("waits do not grow: %v", waits)
	}
}

func TestKeeperFollowsRoots(t *testing.T) {
	t.Parallel()
	k := keep(t)
	k.pass(t, 0, 5000, nil)
	first := k.settled(t, func(s State) bool { return s.Certificate != nil })
	next := newRoot(t, k.clock.Now())

	// A root that is added is trusted at once, and nothing is renewed for it.
	must(t, os.WriteFile(k.roots, k.issuer.bundle.WithRoots(next.Roots()...).RootPEM(), 0o600))
	k.settled(t, func(s State) bool { return within(next.RootPEM(), s.Roots) && s.Certificate == first.Certificate })

	// A root that goes takes the certificates that it signed with it.
	k.issuer.bundle = next
	must(t, os.WriteFile(k.roots, next.RootPEM(), 0o600))
	_, after := k.pass(t, time.Second, 100, nil)
	if after > lastRetry {
		t.Errorf("renewed after %s, want at most %s", after, lastRetry)
	}
	k.settled(t, func(s State) bool { return !within(first.Certificate.Roots, s.Roots) })
}

func TestKeeperDoesNotAskWithoutAPause(t *testing.T) {
	t.Parallel()
	now := time.Now()
	root := newRoot(t, now)
	key, csr, err := newRequest("")
	must(t, err)
	for name, ttl := range map[string]time.Duration{"about to end": time.Millisecond, "ended": -time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			chain, err := root.Sign(csr, identity.SPIFFE{TrustDomain: "t", Namespace: "n", ServiceAccount: "s"}, pki.Validity{Now: now, TTL: ttl})
			must(t, err)
			c, err := newCertificate(key, chain)
			must(t, err)
			if got := renewal(c, now, 0); got < firstRetry {
				t.Errorf("renewed after %s, want at least %s", got, firstRetry)
			}
		})
	}
}

func TestNewCertificateRefuses(t *testing.T) {
	t.Parallel()
	now := time.Now()
	b := newRoot(t, now)
	key, csr, err := newRequest("spiffe://t/ns/n/sa/s")
	must(t, err)
	good, err := b.Sign(csr, identity.SPIFFE{TrustDomain: "t", Namespace: "n", ServiceAccount: "s"}, pki.Validity{Now: now, TTL: time.Hour})
	must(t, err)
	otherKey, _, err := newRequest("")
	must(t, err)
	tests := map[string]struct {
		key   []byte
		chain []string
	}{
		"a leaf alone":          {key, good[:1]},
		"nothing":               {key, nil},
		"another's certificate": {otherKey, good},
		"a root that is none":   {key, []string{good[0], "hello"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := newCertificate(tt.key, append([]string{}, tt.chain...)); err == nil {
				t.Error("accepted")
			}
		})
	}
	c, err := newCertificate(key, append([]string{}, good...))
	must(t, err)
	if !c.Valid(now) || c.Valid(now.Add(2*time.Hour)) || c.Valid(now.Add(-time.Hour)) {
		t.Errorf("validity is not from %s to %s", c.NotBefore(), c.NotAfter())
	}
}
