// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package sds serves keys and certificates to the Envoy beside us, over a unix
// socket, by Envoy's secret discovery: both the full and the delta protocol. The
// names are Istio's: "default" and "ROOTCA" for the workload's identity, and
// "file-cert:<certificate>~<key>" and "file-root:<certificates>" for mounted files,
// which are followed while somebody wants them.
//
//	Store.Set ─► every stream that subscribes (coalesced) ─► Envoy
package sds

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Names of the workload's identity.
const (
	NameDefault = "default"
	NameRoots   = "ROOTCA"
)

// entry is a secret as it is sent; its version is its content.
type entry struct {
	version string
	body    *anypb.Any
}

// Store holds secrets by name and wakes streams when one changes. Safe for
// concurrent use; values are not modified once set.
type Store struct {
	mu      sync.Mutex
	entries map[string]entry
	streams map[chan<- struct{}]struct{}
}

// NewStore returns an empty one.
func NewStore() *Store {
	return &Store{entries: map[string]entry{}, streams: map[chan<- struct{}]struct{}{}}
}

// SetCertificate puts a chain and its key, in PEM.
func (s *Store) SetCertificate(name string, chain, key []byte) error {
	return s.set(&tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: inline(chain), PrivateKey: inline(key),
	}}})
}

// SetRoots puts certificates to trust, in PEM.
func (s *Store) SetRoots(name string, roots []byte) error {
	return s.set(&tlsv3.Secret{Name: name, Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
		TrustedCa: inline(roots),
	}}})
}

func inline(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}

func (s *Store) set(secret *tlsv3.Secret) error {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(secret)
	if err != nil {
		return fmt.Errorf("marshal secret %s: %w", secret.GetName(), err)
	}
	sum := sha256.Sum256(value)
	e := entry{version: hex.EncodeToString(sum[:8]), body: &anypb.Any{TypeUrl: TypeURL, Value: value}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[secret.GetName()].version == e.version {
		return nil
	}
	s.entries[secret.GetName()] = e
	for c := range s.streams {
		select {
		case c <- struct{}{}:
		default: // it has been told and has not looked yet
		}
	}
	return nil
}

func (s *Store) get(name string) (entry, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[name]
	return e, ok
}

// watch wakes the returned channel after changes until stop is called.
func (s *Store) watch() (wake <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams[c] = struct{}{}
	return c, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.streams, c)
	}
}
