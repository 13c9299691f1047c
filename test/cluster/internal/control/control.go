// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package control carries commands to those who keep programs and nodes running:
// a request and an answer, as JSON, on a socket that is root's alone.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Request asks for one thing to be done to one program or node.
type Request struct {
	Name   string         `json:"name"`
	Start  bool           `json:"start,omitempty"`  // start it again, else signal it
	Signal syscall.Signal `json:"signal,omitempty"` // of programs; a node's end is always its power's
	Hold   bool           `json:"hold,omitempty"`   // do not start it again until told to
}

type answer struct {
	Error string `json:"error,omitempty"`
}

// Timeout is what one request may take: a node's end waits for its kernel objects.
const Timeout = 30 * time.Second

// Ask has the request done by whoever listens on the socket.
func Ask(socket string, r Request) error {
	c, err := net.DialTimeout("unix", socket, Timeout)
	if err != nil {
		return fmt.Errorf("reach the supervisor: %w", err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(Timeout)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	if err := json.NewEncoder(c).Encode(r); err != nil {
		return fmt.Errorf("ask the supervisor: %w", err)
	}
	var a answer
	if err := json.NewDecoder(c).Decode(&a); err != nil {
		return fmt.Errorf("hear from the supervisor: %w", err)
	}
	if a.Error != "" {
		return errors.New(a.Error)
	}
	return nil
}

// Listen opens the socket. A name that begins with @ is no file's.
func Listen(socket string) (*net.UnixListener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for commands: %w", err)
	}
	return l, nil
}

// Serve has do answer requests until the context ends.
func Serve(ctx context.Context, l *net.UnixListener, do func(Request) error) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept command: %w", err)
		}
		go func() {
			defer c.Close()
			serve(c, do)
		}()
	}
}

func serve(c *net.UnixConn, do func(Request) error) {
	if root, err := isRoot(c); err != nil || !root {
		return
	}
	if err := c.SetDeadline(time.Now().Add(Timeout)); err != nil {
		return
	}
	var r Request
	if err := json.NewDecoder(c).Decode(&r); err != nil {
		return
	}
	var a answer
	if err := do(r); err != nil {
		a.Error = err.Error()
	}
	_ = json.NewEncoder(c).Encode(a) // who has gone away does not want to know
}

// isRoot says whether root is at the other end. Names that are no file's have no
// permissions.
func isRoot(c *net.UnixConn) (bool, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return false, fmt.Errorf("look at the caller: %w", err)
	}
	var caller *unix.Ucred
	var inner error
	err = raw.Control(func(fd uintptr) {
		caller, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) //nolint:gosec // a file descriptor
	})
	if err := errors.Join(err, inner); err != nil {
		return false, fmt.Errorf("look at the caller: %w", err)
	}
	return caller.Uid == 0, nil
}
