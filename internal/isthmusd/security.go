// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package isthmusd

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ca"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/ingest"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/lifecycle"
	"github.com/isthmus-mesh/isthmus/internal/pki"
)

// security is who calls, and the CA. Without a CA (a directory to serve from and
// no CADir) only the authenticator is set, which knows nobody.
type security struct {
	callers   *authn.Authenticator
	authority *ca.Authority
	serving   *ca.Serving
	// follow swaps the CA when its Secret changes, or what the mesh trusts; empty when
	// it cannot.
	follow []lifecycle.Part
}

// secure loads the CA and makes what depends on it.
func (d *Daemon) secure(ctx context.Context, kube *ingest.Kube) error {
	tokens, err := d.verifier()
	if err != nil {
		return err
	}
	s := &security{}
	d.security = s
	s.callers = authn.New(authn.Options{
		TrustDomain: d.cfg.Topology.TrustDomain,
		Tokens:      tokens,
		Accounts:    d.accounts(),
		Roots: func() *x509.CertPool {
			if s.authority == nil {
				return x509.NewCertPool()
			}
			return s.authority.Roots()
		},
	})
	bundle, err := d.loadCA(ctx, kube)
	if err != nil || bundle == nil {
		return err
	}
	s.authority = ca.New(ca.Options{
		Bundle: bundle, Identities: s.callers, Metrics: d.metrics, Log: d.log.WithName("ca"),
	})
	s.serving = s.authority.Serving(d.servingNames(), []net.IP{net.IPv4(127, 0, 0, 1)})
	if kube != nil {
		s.follow = d.followCA(kube)
	}
	return nil
}

// servingNames are the names under which proxies and the API server find us.
func (d *Daemon) servingNames() []string {
	t := d.cfg.Topology
	service := "isthmusd-" + t.Name + "." + t.Namespace
	return []string{service + ".svc", service, service + ".svc." + t.ClusterDomain, "localhost"}
}

func (d *Daemon) caKey() model.Key {
	return model.Key{Namespace: d.cfg.Topology.Namespace, Name: "isthmus-ca-" + d.cfg.Topology.Name}
}

// loadCA reads the CA from its Secret, for which it waits, or its directory,
// where it makes one if there is none. It's nil when there is neither.
func (d *Daemon) loadCA(ctx context.Context, kube *ingest.Kube) (*pki.Bundle, error) {
	if kube != nil {
		return d.waitCA(ctx, kube)
	}
	if d.cfg.CADir == "" {
		return nil, nil
	}
	data, err := readCADir(d.cfg.CADir)
	if errors.Is(err, fs.ErrNotExist) {
		return makeCADir(d.cfg.CADir, d.cfg.Topology.TrustDomain)
	}
	if err != nil {
		return nil, err
	}
	b, err := pki.Load(data, time.Now())
	if err != nil {
		return nil, fmt.Errorf("load CA from %s: %w", d.cfg.CADir, err)
	}
	return b, nil
}

// readCADir reads the files of a CA; key and root are required.
func readCADir(dir string) (map[string][]byte, error) {
	data := map[string][]byte{}
	for _, name := range []string{pki.KeyPrivate, pki.KeyRoot, pki.KeyCert, pki.KeyChain} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		optional := name == pki.KeyCert || name == pki.KeyChain
		if optional && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read CA: %w", err)
		}
		data[name] = b
	}
	return data, nil
}

// makeCADir makes a CA and writes its files. It never overwrites one: half a CA
// in the directory is for a person to look at.
func makeCADir(dir, organization string) (*pki.Bundle, error) {
	b, err := pki.NewRoot(pki.RootOptions{Organization: organization, Validity: pki.Validity{Now: time.Now()}})
	if err != nil {
		return nil, err
	}
	data, err := b.Data()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make CA directory: %w", err)
	}
	for _, name := range []string{pki.KeyPrivate, pki.KeyCert, pki.KeyRoot} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, fmt.Errorf("write CA: %w", err)
		}
		_, err = f.Write(data[name])
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("write CA: %w", err)
		}
	}
	return b, nil
}

// waitCA waits for a CA Secret that can be used; the operator makes it.
func (d *Daemon) waitCA(ctx context.Context, kube *ingest.Kube) (*pki.Bundle, error) {
	last := ""
	for {
		b, err := d.caSecret(ctx, kube)
		if err == nil {
			return b, nil
		}
		if err.Error() != last {
			last = err.Error()
			d.cfg.Log.Warn("waiting for the CA", "secret", d.caKey().String(), "error", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the CA: %w", errors.Join(ctx.Err(), err))
		case <-time.After(time.Second):
		}
	}
}

func (d *Daemon) caSecret(ctx context.Context, kube *ingest.Kube) (*pki.Bundle, error) {
	data, err := kube.Secret(ctx, d.caKey())
	if err != nil {
		return nil, err
	}
	record, err := kube.ConfigMap(ctx, d.rootKey())
	if err != nil {
		return nil, err
	}
	return trusted(data, publishedBy(record), time.Now())
}
