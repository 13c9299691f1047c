// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package forward carries the API server's port out of the cell: the listener was
// opened on the host before the cell was made, the far end is dialled from inside.
package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const retryDelay = 100 * time.Millisecond

// Serve copies bytes between what l accepts and target until the context ends.
func Serve(ctx context.Context, l net.Listener, target string) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var connections sync.WaitGroup
	defer connections.Wait()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept: %w", err)
		}
		if err != nil { // such as too many open files: others will close
			time.Sleep(retryDelay)
			continue
		}
		connections.Go(func() { carry(ctx, c, target) })
	}
}

func carry(ctx context.Context, near net.Conn, target string) {
	defer near.Close()
	d := net.Dialer{Timeout: 5 * time.Second}
	far, err := d.DialContext(ctx, "tcp", target)
	if err != nil {
		return // the client sees the connection close, as it would without us
	}
	defer far.Close()
	stop := context.AfterFunc(ctx, func() { near.Close(); far.Close() })
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { oneWay(far, near) })
	both.Go(func() { oneWay(near, far) })
	both.Wait()
}

// oneWay passes the end of the stream on, so that half-closed connections stay
// half open.
func oneWay(dst, src net.Conn) {
	_, err := io.Copy(dst, src)
	t, ok := dst.(*net.TCPConn)
	if err != nil || !ok || t.CloseWrite() != nil {
		dst.Close()
	}
}
