// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"

	"github.com/coder/websocket"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"
)

// exchange sends a line and returns its answer, on one connection or stream that
// stays open between calls.
type exchange func(line string) (string, error)

func holdCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "hold URL",
		Short: "keep one tcp://, grpc:// or ws:// connection and send it every line of the standard input",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			talk, err := hold(c.Context(), args[0])
			if err != nil {
				return err
			}
			out := json.NewEncoder(os.Stdout)
			for in := bufio.NewScanner(os.Stdin); in.Scan(); {
				r := result{OK: true}
				if got, err := talk(in.Text()); err != nil {
					r = failure(err)
				} else {
					r.Body = got
				}
				if err := out.Encode(r); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// hold opens the connection; it ends with the process.
func hold(ctx context.Context, target string) (exchange, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	a := &attempt{clientOptions: &clientOptions{}, target: u.Host}
	switch u.Scheme {
	case "tcp":
		return a.holdTCP(ctx)
	case "grpc":
		return a.holdGRPC(ctx)
	case "ws":
		a.target = target
		return a.holdWebsocket(ctx)
	}
	return nil, errors.New("hold: tcp, grpc or ws, not " + u.Scheme)
}

func (a *attempt) holdTCP(ctx context.Context) (exchange, error) {
	c, err := a.dial(ctx, "tcp", a.target)
	if err != nil {
		return nil, err
	}
	in := bufio.NewReader(c)
	return func(line string) (string, error) {
		if _, err := io.WriteString(c, line+"\n"); err != nil {
			return "", err
		}
		return in.ReadString('\n')
	}, nil
}

func (a *attempt) holdGRPC(ctx context.Context) (exchange, error) {
	c, err := a.grpc()
	if err != nil {
		return nil, err
	}
	s, err := c.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, streamMethod)
	if err != nil {
		return nil, err
	}
	return func(line string) (string, error) {
		in := &structpb.Struct{Fields: map[string]*structpb.Value{"line": structpb.NewStringValue(line)}}
		if err := s.SendMsg(in); err != nil && !errors.Is(err, io.EOF) { // after EOF the answer says why
			return "", err
		}
		out := &structpb.Struct{}
		if err := s.RecvMsg(out); err != nil {
			return "", err
		}
		f := out.GetFields()
		return fmt.Sprintf("%s remote=%s %s", f["name"].GetStringValue(), f["remote"].GetStringValue(), f["echo"].GetStringValue()), nil
	}, nil
}

func (a *attempt) holdWebsocket(ctx context.Context) (exchange, error) {
	c, err := a.websocket(ctx)
	if err != nil {
		return nil, err
	}
	return func(line string) (string, error) {
		if err := c.Write(ctx, websocket.MessageText, []byte(line)); err != nil {
			return "", err
		}
		_, b, err := c.Read(ctx)
		return string(b), err
	}, nil
}
