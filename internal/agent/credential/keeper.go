// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package credential

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/utils/clock"

	"github.com/isthmus-mesh/isthmus/internal/agent/files"
)

// Back-off of a CA that does not answer: doubled from the first to the last.
const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// State is what the workload presents and whom it trusts.
type State struct {
	Certificate *Certificate
	// Roots in PEM: those of the mounted file and those that came with the certificate.
	Roots []byte
}

// Issuer is what Authority does.
type Issuer interface {
	Issue(ctx context.Context, before *Certificate, now time.Time) (*Certificate, error)
}

// Keeper keeps the certificate fresh. Fields are set before Run and not after.
type Keeper struct {
	Issuer Issuer
	// RootFile is watched: a new root is trusted at once, and a certificate whose
	// roots are no longer in the file is replaced.
	RootFile string
	// Changed gets every new state, the first one included, from one goroutine.
	Changed func(State)
	Clock   clock.WithTicker
	// Jitter returns a number in [0,1), so that pods born together renew apart.
	Jitter func() float64
	Log    logr.Logger
}

// Run gets the first certificate, however long it takes, and keeps it fresh until
// ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	roots := make(chan []byte, 1)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return files.Watch(ctx, []string{k.RootFile}, func(c [][]byte) {
			select {
			case <-roots: // nobody has taken the one before; it's out of date
			default:
			}
			roots <- c[0]
		})
	})
	g.Go(func() error { return k.keep(ctx, roots) })
	return g.Wait()
}

// keep owns the state: one loop that waits for time, for roots, or for the end.
func (k *Keeper) keep(ctx context.Context, roots <-chan []byte) error {
	var (
		state State
		file  []byte
		retry = firstRetry
		due   = k.Clock.NewTimer(0)
	)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case file = <-roots:
			if state.Certificate == nil {
				continue
			}
			if len(file) > 0 && !within(state.Certificate.Roots, file) {
				k.Log.Info("roots changed; renewing the certificate")
				due.Reset(time.Duration(k.Jitter() * float64(lastRetry)))
			}
		case <-due.C():
			c, err := k.Issuer.Issue(ctx, state.Certificate, k.Clock.Now())
			if ctx.Err() != nil {
				return nil
			}
			if err == nil && !k.Clock.Now().Before(c.NotAfter()) {
				err = fmt.Errorf("the certificate that came ended at %s; is a clock wrong?", c.NotAfter().UTC().Format(time.RFC3339))
			}
			if err != nil {
				k.failed(state.Certificate, err)
				due.Reset(time.Duration((0.5 + k.Jitter()/2) * float64(retry)))
				retry = min(2*retry, lastRetry)
				continue
			}
			retry, state.Certificate = firstRetry, c
			due.Reset(renewal(c, k.Clock.Now(), k.Jitter()))
			k.Log.Info("got a certificate", "notAfter", c.NotAfter().UTC().Format(time.RFC3339))
		}
		state.Roots = merge(file, state.Certificate.Roots)
		k.Changed(state)
	}
}

func (k *Keeper) failed(c *Certificate, err error) {
	left := "none yet"
	if c != nil {
		left = fmt.Sprintf("valid for %s", c.NotAfter().Sub(k.Clock.Now()).Round(time.Second))
	}
	k.Log.Error(err, "no new certificate; will try again", "certificate", left)
}

// renewal is how long to wait: half of what is left of the certificate's life, up
// to a fiftieth more or less. Near the end of the CA's own life that goes to
// nothing, and is bounded so that pods do not ask without a pause.
func renewal(c *Certificate, now time.Time, jitter float64) time.Duration {
	life := c.NotAfter().Sub(now)
	return max(firstRetry, time.Duration((0.49+0.02*jitter)*float64(life)))
}
