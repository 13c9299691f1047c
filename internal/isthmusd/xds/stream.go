// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/authn"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/model"
	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// sender is the half of a gRPC stream that its owner uses.
type sender interface{ SendMsg(m any) error }

// stream is one ADS stream. Everything but status belongs to one goroutine.
type stream struct {
	server   *Server
	protocol Protocol
	out      sender
	log      logr.Logger
	notify   chan struct{}

	// Who is at the other end: proven, claimed, and the two together.
	caller   authn.Caller
	claim    *model.Proxy
	proxy    *model.Proxy
	workload *model.Workload

	// state is the newest; opened the newest whose clusters the client has, and
	// to which listeners and routes may follow.
	state, opened *resource.State
	noticed       time.Time
	converged     uint64

	watches [resource.NumTypes]watch
	// leaving are clusters that the client still has and should not.
	leaving map[string]leaving
	// held are endpoints that the client has at an older version than sent says,
	// until the clusters that go with the new one are acknowledged.
	held map[string]*resource.Resource
	// kept are clusters that the client has as they were, until it can take them as
	// they are: see keep.go.
	kept map[string]*resource.Resource
	// owed are services whose clusters were sent before their endpoints were asked
	// for; early the clusters that were sent before any were.
	owed     map[string]struct{}
	early    [][]*resource.Resource
	unserved []unserved
	nonces   uint64

	connected time.Time
	status    atomic.Pointer[ProxyStatus]
}

// leaving is a cluster on its way out.
type leaving struct {
	// version as the client has it; 0 when a former stream sent it.
	version uint64
	// resource of that version, for the state of the world only: it has to go along
	// with what else is sent, and is not kept for others.
	resource *resource.Resource
	// since is the revision that no longer has it.
	since uint64
	// deadline is zero until listeners and routes have reached that revision.
	deadline time.Time
}

// serve runs a stream until it ends.
func (s *Server) serve(g grpc.ServerStream, p Protocol, recv func() (request, error)) error {
	ctx := g.Context()
	caller, err := s.o.Identities.Authenticate(ctx)
	if err != nil {
		s.metrics.refused.WithLabelValues(status.Code(err).String()).Inc()
		return err
	}
	st := s.newStream(p, g, caller)
	stop := s.o.Source.Watch(st.notify)
	defer stop()
	requests := receive(ctx, recv)
	first, err := next(ctx, requests)
	if err != nil {
		return err
	}
	if err := st.admit(ctx, first.node); err != nil {
		s.metrics.refused.WithLabelValues(status.Code(err).String()).Inc()
		s.o.Log.Info("Refused a proxy", "node", first.node.GetId(), "error", err.Error())
		return err
	}
	st.log = s.o.Log.WithValues("proxy", st.proxy.Namespace+"/"+st.proxy.Name)
	s.streams.add(st)
	s.metrics.streams.WithLabelValues(p.String()).Inc()
	defer func() {
		s.streams.remove(st)
		s.metrics.streams.WithLabelValues(p.String()).Dec()
	}()
	return st.run(ctx, first, requests)
}

func (s *Server) newStream(p Protocol, out sender, caller authn.Caller) *stream {
	st := &stream{
		server:    s,
		protocol:  p,
		out:       out,
		log:       s.o.Log,
		notify:    make(chan struct{}, 1),
		caller:    caller,
		leaving:   map[string]leaving{},
		held:      map[string]*resource.Resource{},
		kept:      map[string]*resource.Resource{},
		connected: s.o.Clock.Now(),
	}
	for t := range st.watches {
		st.watches[t].typ = resource.Type(t)
	}
	return st
}

// received is a request or the end of them.
type received struct {
	request request
	err     error
}

// receive reads requests until the stream ends; gRPC ends the read when the
// handler returns, so the goroutine never outlives the stream for long.
func receive(ctx context.Context, recv func() (request, error)) <-chan received {
	out := make(chan received)
	go func() {
		for {
			r, err := recv()
			select {
			case out <- received{request: r, err: err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return out
}

func next(ctx context.Context, requests <-chan received) (request, error) {
	select {
	case in := <-requests:
		return in.request, in.err
	case <-ctx.Done():
		return request{}, ctx.Err()
	}
}

// run is the stream's one goroutine: take what came, then send what may go.
func (s *stream) run(ctx context.Context, first request, requests <-chan received) error {
	timer := s.server.o.Clock.NewTimer(time.Hour)
	defer timer.Stop()
	if err := s.refresh(); err != nil {
		return err
	}
	s.take(first)
	for {
		now := s.server.o.Clock.Now()
		if s.expired(now) {
			return status.Error(codes.Unauthenticated, "the caller's proof of identity has ended; connect anew")
		}
		if err := s.pump(now); err != nil {
			return err
		}
		timer.Reset(s.wake(now).Sub(now))
		select {
		case in := <-requests:
			if errors.Is(in.err, io.EOF) {
				return nil
			}
			if in.err != nil {
				return in.err
			}
			s.take(in.request)
		case <-s.notify:
			if err := s.refresh(); err != nil {
				return err
			}
		case <-timer.C():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// refresh fetches the newest state. A state that cannot be had is an error only
// while the proxy has none: it keeps its last one otherwise.
func (s *stream) refresh() error {
	if pod := s.pod(); pod != s.workload {
		if pod == nil && s.caller.Verified() {
			return status.Errorf(codes.PermissionDenied, "pod %s/%s is gone", s.claim.Namespace, s.claim.Name)
		}
		if err := s.become(pod); err != nil {
			return err
		}
	}
	state, err := s.server.o.Source.State(s.proxy)
	if err != nil {
		s.server.metrics.failures.Inc()
		s.log.Error(err, "Cannot compute what the proxy should have")
		if s.state == nil {
			return status.Error(codes.Unavailable, "configuration cannot be computed now")
		}
		return nil
	}
	if state != s.state {
		s.state, s.noticed = state, s.server.o.Clock.Now()
	}
	return nil
}

func (s *stream) expired(now time.Time) bool {
	return !s.caller.NotAfter.IsZero() && !now.Before(s.caller.NotAfter)
}

// wake is when something is to be done though nothing comes.
func (s *stream) wake(now time.Time) time.Time {
	at := now.Add(time.Hour)
	earlier := func(t time.Time) {
		if t.Before(at) {
			at = t
		}
	}
	if !s.caller.NotAfter.IsZero() {
		earlier(s.caller.NotAfter)
	}
	for t := range s.watches {
		if sent, ok := s.watches[t].oldest(); ok {
			earlier(sent.Add(s.server.o.Patience))
		}
		if at, ok := s.watches[t].letGoAt(); ok {
			earlier(at)
		}
		if at := s.watches[t].trialUntil; now.Before(at) {
			earlier(at)
		}
	}
	if len(s.kept) > 0 && s.starts(now) {
		earlier(s.connected.Add(startPatience))
	}
	for _, l := range s.leaving {
		if !l.deadline.IsZero() {
			earlier(l.deadline)
		}
	}
	return at
}
