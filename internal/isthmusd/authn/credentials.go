// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package authn

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"google.golang.org/grpc/credentials"
	"k8s.io/utils/clock"
)

// NewCredentials are TLS credentials for a gRPC server whose connections do not
// outlive the client certificate that opened them. gRPC's own bound on a
// connection's age (GOAWAY) knows nothing of certificates, and refusing the next
// stream is not enough: Envoy would open it on the old connection for ever. A
// nil clock is the real one.
func NewCredentials(config *tls.Config, c clock.WithDelayedExecution) credentials.TransportCredentials {
	if c == nil {
		c = clock.RealClock{}
	}
	return &bounded{TransportCredentials: credentials.NewTLS(config), clock: c}
}

type bounded struct {
	credentials.TransportCredentials
	clock clock.WithDelayedExecution
}

// ServerHandshake implements credentials.TransportCredentials.
func (b *bounded) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := b.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	state, ok := info.(credentials.TLSInfo)
	if !ok || len(state.State.PeerCertificates) == 0 {
		return conn, info, nil
	}
	rest := max(state.State.PeerCertificates[0].NotAfter.Sub(b.clock.Now()), time.Second)
	return &mortal{Conn: conn, timer: b.clock.AfterFunc(rest, func() { _ = conn.Close() })}, info, nil
}

// Clone implements credentials.TransportCredentials.
func (b *bounded) Clone() credentials.TransportCredentials {
	return &bounded{TransportCredentials: b.TransportCredentials.Clone(), clock: b.clock}
}

// ClientHandshake implements credentials.TransportCredentials; clients are not bounded.
func (b *bounded) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return b.TransportCredentials.ClientHandshake(ctx, authority, raw)
}

// mortal is a connection with an end.
type mortal struct {
	net.Conn
	timer clock.Timer
}

// Close implements net.Conn.
func (m *mortal) Close() error {
	m.timer.Stop()
	return m.Conn.Close()
}
