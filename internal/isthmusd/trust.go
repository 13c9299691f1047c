// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package isthmusd

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ca"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ingest"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/lifecycle"
	"github.com/isthmus-mesh/isthmus/internal/pki"
)

// fingerprintKey is where the operator notes the root's fingerprint beside its text.
const fingerprintKey = "isthmus.dev/root-fingerprint"

// published is what proxies trust, by the operator's record; nil where nothing is
// recorded: a mesh that begins, or one that is to begin anew.
type published struct {
	roots       []*x509.Certificate
	fingerprint string
}

func (d *Daemon) rootKey() model.Key {
	return model.Key{Namespace: d.cfg.Topology.Namespace, Name: "isthmus-ca-root-" + d.cfg.Topology.Name}
}

// publishedBy reads the record. A text that cannot be read is no root: then only the
// fingerprint tells.
func publishedBy(record *corev1.ConfigMap) *published {
	if record == nil {
		return nil
	}
	roots, err := pki.ParseCertificates([]byte(record.Data[pki.KeyRoot]))
	if err != nil {
		roots = nil
	}
	return &published{roots: roots, fingerprint: record.Annotations[fingerprintKey]}
}

func (p *published) knows(c *x509.Certificate) bool {
	return slices.ContainsFunc(p.roots, c.Equal) || fingerprint(c) == p.fingerprint
}

func fingerprint(c *x509.Certificate) string { return fmt.Sprintf("%x", sha256.Sum256(c.Raw)) }

// trusted is the CA in a Secret's data, if what it signs is trusted: a root that
// somebody put in the place of the mesh's signs nothing.
func trusted(data map[string][]byte, p *published, now time.Time) (*pki.Bundle, error) {
	b, err := pki.Load(data, now)
	if err != nil {
		return nil, err
	}
	if p != nil && !slices.ContainsFunc(b.Roots(), p.knows) {
		return nil, fmt.Errorf("it holds another root (%.16s) than the published one (%.16s), which proxies trust: restore the Secret, or delete the ConfigMap with the published root to begin anew",
			fingerprint(b.Roots()[0]), p.fingerprint)
	}
	return b, nil
}

// takeCA swaps the CA for the one in a Secret's data if it is another and trusted.
func takeCA(a *ca.Authority, data map[string][]byte, p *published, now time.Time) (changed bool, err error) {
	b, err := trusted(data, p, now)
	if err != nil || b.Equal(a.Bundle()) {
		return false, err
	}
	a.Swap(b)
	return true, nil
}

// follower judges the Secret and the record together, whichever changed last.
type follower struct {
	d      *Daemon
	mu     sync.Mutex
	data   map[string][]byte
	record *published
	heard  bool // of the record
}

// followCA takes over a rotated CA. A Secret that cannot be used, or that holds a
// root which the mesh does not trust, changes nothing: the CA goes on as it is.
func (d *Daemon) followCA(kube *ingest.Kube) []lifecycle.Part {
	f := &follower{d: d}
	return []lifecycle.Part{
		{Name: "CA", Run: func(ctx context.Context) error {
			return kube.FollowSecret(ctx, d.caKey(), func(data map[string][]byte) { f.judge(func() { f.data = data }) })
		}},
		{Name: "published root", Run: func(ctx context.Context) error {
			return kube.FollowConfigMap(ctx, d.rootKey(), func(m *corev1.ConfigMap) {
				f.judge(func() { f.record, f.heard = publishedBy(m), true })
			})
		}},
	}
}

func (f *follower) judge(hear func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	hear()
	if f.data == nil || !f.heard {
		return
	}
	a, log := f.d.security.authority, f.d.cfg.Log
	switch changed, err := takeCA(a, f.data, f.record, time.Now()); {
	case err != nil:
		log.Error("the CA Secret cannot be used, the CA stays as it is", "secret", f.d.caKey().String(), "error", err)
	case changed:
		log.Info("the CA changed", "notAfter", a.Bundle().NotAfter())
	}
}
