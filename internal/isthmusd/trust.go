// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package isthmusd

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ca"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ingest"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/lifecycle"
	"github.com/isthmus-mesh/isthmus/internal/pki"
	"github.com/isthmus-mesh/isthmus/internal/topology"
)

func (d *Daemon) rootKey() model.Key {
	return model.Key{Namespace: d.cfg.Topology.Namespace, Name: topology.RootConfigMapName(d.cfg.Topology.Name)}
}

// publishedBy reads the operator's record of what proxies trust; nil where nothing is
// recorded: a mesh that begins, or one that is to begin anew.
func publishedBy(record *corev1.ConfigMap) *pki.Published {
	if record == nil {
		return nil
	}
	return pki.ReadPublished([]byte(record.Data[pki.KeyRoot]), record.Annotations[v1alpha1.AnnotationFingerprint])
}

// trusted is the CA in a Secret's data, if what it signs is trusted: a root that
// somebody put in the place of the mesh's signs nothing.
func trusted(data map[string][]byte, p *pki.Published, now time.Time) (*pki.Bundle, error) {
	b, err := pki.Load(data, now)
	if err != nil {
		return nil, err
	}
	if p != nil && !p.Knows(b.Roots()) {
		return nil, fmt.Errorf("it holds another root (%.16s) than the published one (%.16s), which proxies trust: restore the Secret, or delete the ConfigMap with the published root to begin anew",
			pki.Fingerprint(b.Roots()[0]), p.Fingerprint)
	}
	return b, nil
}

// takeCA swaps the CA for the one in a Secret's data if it is another and trusted.
func takeCA(a *ca.Authority, data map[string][]byte, p *pki.Published, now time.Time) (changed bool, err error) {
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
	record *pki.Published
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
