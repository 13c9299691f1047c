// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package sds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TypeURL of secrets.
const TypeURL = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

// Server serves a Store.
type Server struct {
	secretv3.UnimplementedSecretDiscoveryServiceServer
	store *Store
	log   logr.Logger
	files *followers
}

// NewServer returns a Server of the store. File secrets are read below root,
// which is "/" in a pod.
func NewServer(store *Store, root string, log logr.Logger) *Server {
	return &Server{store: store, log: log, files: &followers{store: store, root: root, log: log, following: map[string]bool{}}}
}

// Listen opens the socket for the owner alone, replacing one that an earlier
// process left. When it returns, Envoy can connect.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make directory of socket: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect socket: %w", err), l.Close())
	}
	return l, nil
}

// Serve answers on the listener until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.files.ctx, s.files.wg = ctx, &wg
	g := grpc.NewServer()
	secretv3.RegisterSecretDiscoveryServiceServer(g, s)
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	if err := g.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve secrets: %w", err)
	}
	return nil
}

// FetchSecrets is not offered: Envoy streams.
func (s *Server) FetchSecrets(context.Context, *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	return nil, status.Error(codes.Unimplemented, "use StreamSecrets or DeltaSecrets")
}

// StreamSecrets implements the full protocol.
func (s *Server) StreamSecrets(st secretv3.SecretDiscoveryService_StreamSecretsServer) error {
	f := &full{sent: map[string]string{}}
	return run(st.Context(), s, st.Recv, func(r *discoveryv3.DiscoveryRequest) error {
		if e := r.GetErrorDetail(); e != nil {
			s.log.Info("Envoy refused secrets", "names", r.GetResourceNames(), "error", e.GetMessage())
		}
		if !f.request(r) {
			return nil
		}
		s.files.follow(f.names...)
		return nil
	}, func() error {
		if res := f.response(s.store); res != nil {
			return st.Send(res)
		}
		return nil
	})
}

// DeltaSecrets implements the delta protocol.
func (s *Server) DeltaSecrets(st secretv3.SecretDiscoveryService_DeltaSecretsServer) error {
	d := &delta{sent: map[string]string{}}
	return run(st.Context(), s, st.Recv, func(r *discoveryv3.DeltaDiscoveryRequest) error {
		if e := r.GetErrorDetail(); e != nil {
			s.log.Info("Envoy refused secrets", "error", e.GetMessage())
		}
		d.request(r)
		s.files.follow(r.GetResourceNamesSubscribe()...)
		return nil
	}, func() error {
		if res := d.response(s.store); res != nil {
			return st.Send(res)
		}
		return nil
	})
}

// run owns a stream: it hands over requests and wakes up for changes, one at a
// time, and lets push send what is due after each.
func run[R any](ctx context.Context, s *Server, recv func() (R, error), handle func(R) error, push func() error) error {
	wake, stop := s.store.watch()
	defer stop()
	requests, failed := make(chan R), make(chan error, 1)
	go func() { // ends with the stream: Recv fails then
		for {
			r, err := recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case requests <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case r := <-requests:
			if err := handle(r); err != nil {
				return err
			}
		case <-wake:
		}
		if err := push(); err != nil {
			return err
		}
	}
}

// full is the state of a stream of the full protocol.
type full struct {
	names []string
	sent  map[string]string // versions by name
	nonce int
	due   bool
}

// request takes the names and tells whether they are to be answered: the first
// request, or other names than before. All else is an ACK or a NACK.
func (f *full) request(r *discoveryv3.DiscoveryRequest) bool {
	if n := r.GetResponseNonce(); n != "" && n != strconv.Itoa(f.nonce) {
		return false
	}
	if r.GetResponseNonce() != "" && sameNames(f.names, r.GetResourceNames()) {
		return false
	}
	f.names, f.due = r.GetResourceNames(), true
	return true
}

// response holds every secret that is wanted and there, if that differs from what
// was sent. A secret that is not there yet comes with a later response.
func (f *full) response(store *Store) *discoveryv3.DiscoveryResponse {
	res := &discoveryv3.DiscoveryResponse{TypeUrl: TypeURL}
	sent := map[string]string{}
	changed := f.due
	for _, n := range f.names {
		e, ok := store.get(n)
		if !ok {
			continue
		}
		changed = changed || f.sent[n] != e.version
		sent[n] = e.version
		res.VersionInfo += e.version
		res.Resources = append(res.Resources, e.body)
	}
	if !changed || len(res.Resources) == 0 {
		return nil
	}
	f.sent, f.due = sent, false
	f.nonce++
	res.Nonce = strconv.Itoa(f.nonce)
	return res
}

func sameNames(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	in := map[string]bool{}
	for _, n := range a {
		in[n] = true
	}
	for _, n := range b {
		if !in[n] {
			return false
		}
	}
	return true
}

// delta is the state of a stream of the delta protocol.
type delta struct {
	sent  map[string]string // versions by subscribed name; "" when not sent yet
	nonce int
}

func (d *delta) request(r *discoveryv3.DeltaDiscoveryRequest) {
	for _, n := range r.GetResourceNamesSubscribe() {
		d.sent[n] = "" // subscribing again asks for the resource again
	}
	for n, v := range r.GetInitialResourceVersions() {
		if _, ok := d.sent[n]; ok {
			d.sent[n] = v
		}
	}
	for _, n := range r.GetResourceNamesUnsubscribe() {
		delete(d.sent, n)
	}
}

func (d *delta) response(store *Store) *discoveryv3.DeltaDiscoveryResponse {
	res := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: TypeURL}
	for n, version := range d.sent {
		if e, ok := store.get(n); ok && e.version != version {
			d.sent[n] = e.version
			res.Resources = append(res.Resources, &discoveryv3.Resource{Name: n, Version: e.version, Resource: e.body})
		}
	}
	if len(res.Resources) == 0 {
		return nil
	}
	d.nonce++
	res.Nonce = strconv.Itoa(d.nonce)
	return res
}
