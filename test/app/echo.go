// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/structpb"
)

// echoMethod takes and returns a google.protobuf.Struct, which spares a schema of our own.
const (
	echoService  = "isthmus.test.Echo"
	echoMethod   = "/" + echoService + "/Call"
	streamMethod = "/" + echoService + "/Stream"
)

func registerEcho(g *grpc.Server, s *server) {
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: echoService,
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Call", Handler: echoHandler(s)}},
		Streams:     []grpc.StreamDesc{{StreamName: "Stream", Handler: streamHandler(s), ServerStreams: true, ClientStreams: true}},
	}, s)
}

func echoHandler(s *server) grpc.MethodHandler {
	return func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := &structpb.Struct{}
		if err := dec(in); err != nil {
			return nil, err
		}
		return s.echo(ctx, in)
	}
}

// streamHandler answers every message until the caller has no more.
func streamHandler(s *server) grpc.StreamHandler {
	return func(_ any, stream grpc.ServerStream) error {
		for {
			in := &structpb.Struct{}
			if err := stream.RecvMsg(in); err != nil {
				if errors.Is(err, io.EOF) {
					return nil
				}
				return err
			}
			out, err := s.echo(stream.Context(), in)
			if err != nil {
				return err
			}
			if err := stream.SendMsg(out); err != nil {
				return err
			}
		}
	}
}

func (s *server) echo(ctx context.Context, in *structpb.Struct) (*structpb.Struct, error) {
	a := answer{Name: s.name, Proto: "grpc", Headers: map[string]string{}}
	if p, ok := peer.FromContext(ctx); ok {
		a.Remote = p.Addr.String()
	}
	md, _ := metadata.FromIncomingContext(ctx)
	for k, v := range md {
		a.Headers[k] = strings.Join(v, ",")
	}
	a.Host = a.Headers[":authority"]
	a.Echo = in.GetFields()["line"].GetStringValue()
	s.log.add(entry{Kind: "grpc", Remote: a.Remote, Host: a.Host, Detail: a.Echo})
	return toStruct(a)
}

func toStruct(a answer) (*structpb.Struct, error) {
	b, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	out := &structpb.Struct{}
	return out, out.UnmarshalJSON(b)
}
