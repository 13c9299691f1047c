// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/structpb"
)

// echoMethod takes and returns a google.protobuf.Struct, which spares a schema of our own.
const (
	echoService = "isthmus.test.Echo"
	echoMethod  = "/" + echoService + "/Call"
)

func registerEcho(g *grpc.Server, s *server) {
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: echoService,
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Call", Handler: echoHandler(s)}},
	}, s)
}

func echoHandler(s *server) grpc.MethodHandler {
	return func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := &structpb.Struct{}
		if err := dec(in); err != nil {
			return nil, err
		}
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
}

func toStruct(a answer) (*structpb.Struct, error) {
	b, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	out := &structpb.Struct{}
	return out, out.UnmarshalJSON(b)
}
