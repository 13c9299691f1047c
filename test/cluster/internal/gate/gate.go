// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package gate is what the CNI plugin policygate and the enforcer say to each
// other: the plugin asks that a pod's policies stand and waits for the answer, so
// that no container of the pod runs before.
package gate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// Socket is where the enforcer listens, as seen inside the cell.
const Socket = "/run/policygate.sock"

// Request is a pod that got its addresses.
type Request struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	UID       string   `json:"uid"`
	IPs       []string `json:"ips"`
}

type reply struct {
	Error string `json:"error,omitempty"`
}

// Ask returns when the pod's policies stand, or an error if they cannot within
// the time, which the plugin hands to the kubelet for another try.
func Ask(r Request, timeout time.Duration) error {
	c, err := net.DialTimeout("unix", Socket, timeout)
	if err != nil {
		return fmt.Errorf("reach the enforcer: %w", err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	if err := json.NewEncoder(c).Encode(r); err != nil {
		return fmt.Errorf("ask the enforcer: %w", err)
	}
	var a reply
	if err := json.NewDecoder(c).Decode(&a); err != nil {
		return fmt.Errorf("hear from the enforcer: %w", err)
	}
	if a.Error != "" {
		return errors.New(a.Error)
	}
	return nil
}

// Serve answers the plugin by admit until the context ends. Each request has a
// goroutine of its own; admit must return when its context ends.
func Serve(ctx context.Context, admit func(context.Context, Request) error) error {
	if err := os.Remove(Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.Listen("unix", Socket)
	if err != nil {
		return fmt.Errorf("listen for the plugin: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept from the plugin: %w", err)
		}
		go answer(ctx, c, admit)
	}
}

func answer(ctx context.Context, c net.Conn, admit func(context.Context, Request) error) {
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var r Request
	if err := json.NewDecoder(c).Decode(&r); err != nil {
		return
	}
	var a reply
	if err := admit(ctx, r); err != nil {
		a.Error = err.Error()
	}
	// A plugin that went away has been given up by the kubelet, which starts anew.
	_ = json.NewEncoder(c).Encode(a)
}
