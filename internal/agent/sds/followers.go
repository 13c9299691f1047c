// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package sds

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"path/filepath"
	"strings"
	"sync"

	"github.com/go-logr/logr"

	"github.com/isthmus-mesh/isthmus/internal/agent/files"
)

// Names of secrets that are files, as Istio forms them.
const (
	prefixCert  = "file-cert:"
	prefixRoot  = "file-root:"
	systemRoots = "system"
)

// followers keeps file secrets in the store up to date, from the first time that
// somebody asks for them on. A file that is missing or broken leaves the last good
// content in place.
type followers struct {
	store *Store
	root  string
	log   logr.Logger
	ctx   context.Context //nolint:containedctx // the life of Serve, which starts the goroutines
	wg    *sync.WaitGroup

	mu        sync.Mutex
	following map[string]bool
}

func (f *followers) follow(names ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range names {
		paths, put := f.parse(n)
		if put == nil || f.following[n] {
			continue
		}
		f.following[n] = true
		f.wg.Go(func() {
			err := files.Watch(f.ctx, paths, func(c [][]byte) {
				if err := put(c); err != nil {
					f.log.Info("file secret not usable", "name", n, "error", err.Error())
				}
			})
			if err != nil {
				f.log.Error(err, "follow file secret", "name", n)
				f.mu.Lock()
				delete(f.following, n) // asked for again, tried again
				f.mu.Unlock()
			}
		})
	}
}

// parse returns which files make the secret of that name and what to do with
// their content; nil for a name that is no file's.
func (f *followers) parse(name string) ([]string, func([][]byte) error) {
	if pair, ok := strings.CutPrefix(name, prefixCert); ok {
		cert, key, ok := strings.Cut(pair, "~")
		if !ok {
			return nil, nil
		}
		return []string{f.path(cert), f.path(key)}, func(c [][]byte) error {
			if _, err := tls.X509KeyPair(c[0], c[1]); err != nil {
				return err
			}
			return f.store.SetCertificate(name, c[0], c[1])
		}
	}
	if file, ok := strings.CutPrefix(name, prefixRoot); ok {
		if file == systemRoots {
			file = "/etc/ssl/certs/ca-certificates.crt"
		}
		return []string{f.path(file)}, func(c [][]byte) error {
			if !x509.NewCertPool().AppendCertsFromPEM(c[0]) {
				return errors.New("no certificate in it")
			}
			return f.store.SetRoots(name, c[0])
		}
	}
	return nil, nil
}

func (f *followers) path(p string) string { return filepath.Join(f.root, p) }
