// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package journey

import (
	"context"
	"strings"
	"time"
)

// peerHeader is where the server's proxy tells the app who called.
const peerHeader = "x-forwarded-client-cert"

// entering are the ways into the mesh.
func entering() []Flow {
	return []Flow{{
		Name:   "outside -> ingress gateway -> web",
		Expect: "200 from web",
		Probe: func(ctx context.Context, e *Env) Observation {
			r, err := e.Outside.Call(ctx, "http", "http://"+e.Ingress+"/"+e.Nonce(), "--host", "web.example.test")
			if err != nil {
				return bad(err)
			}
			peer := peerOf(r.Field("headers", peerHeader))
			return judge(r.Status == 200 && r.Field("name") == "web" && strings.Contains(peer, "/sa/ingress"),
				"web's proxy saw "+peer, "%s from %s", r, r.Field("name"))
		},
	}}
}

// peerOf takes the SPIFFE identity out of the header.
func peerOf(header string) string {
	_, after, ok := strings.Cut(header, "URI=spiffe://")
	if !ok {
		return "no identity"
	}
	id, _, _ := strings.Cut(after, ";")
	id, _, _ = strings.Cut(id, ",")
	return "spiffe://" + id
}

// inside are calls between members, and one of somebody who is not.
func inside() []Flow {
	return []Flow{
		{Name: "client -> web, HTTP", Expect: "200 over mTLS", Probe: callWeb("http", "http://web/")},
		{Name: "client -> web, gRPC", Expect: "answered over mTLS", Probe: callWeb("grpc", "web:50051")},
		{Name: "client -> web, WebSocket", Expect: "echo over mTLS", Probe: callWebSocket},
		{Name: "client -> Redis, TCP", Expect: "PONG over mTLS", Probe: callRedis},
		{Name: "stranger -> web, plaintext", Expect: "refused (Strict)", Probe: strangerCalls},
	}
}

func callWeb(verb, target string) func(context.Context, *Env) Observation {
	return func(ctx context.Context, e *Env) Observation {
		if verb == "http" {
			target += e.Nonce()
		}
		r, err := e.Call(ctx, Shop, "client", verb, target)
		if err != nil {
			return bad(err)
		}
		peer := peerOf(r.Field("headers", peerHeader))
		return judge(r.OK && r.Field("name") == "web" && strings.HasSuffix(peer, "/ns/shop/sa/client"),
			"web's proxy saw "+peer, "%s from %s", r, r.Field("name"))
	}
}

func callWebSocket(ctx context.Context, e *Env) Observation {
	since, id := time.Now().Add(-time.Second), e.Nonce()
	r, err := e.Call(ctx, Shop, "client", "ws", "ws://web/ws?"+id, "--line", id)
	if err != nil {
		return bad(err)
	}
	if !r.OK {
		return judge(false, "", "%s", r)
	}
	line, err := e.ProxyLog(ctx, Shop, "web", id, since)
	if err != nil {
		return bad(err)
	}
	peer := "no identity"
	if strings.Contains(line, "spiffe://cluster.local/ns/shop/sa/client") {
		peer = "spiffe://cluster.local/ns/shop/sa/client"
	}
	return judge(strings.HasSuffix(r.Text(), id) && peer != "no identity", "access log of web's proxy: "+peer, "echo of %q", id)
}

func callRedis(ctx context.Context, e *Env) Observation {
	since := time.Now().Add(-time.Second)
	r, err := e.Call(ctx, Shop, "client", "tcp", "redis:6379", "--line", "PING")
	if err != nil {
		return bad(err)
	}
	if !r.OK {
		return judge(false, "", "%s", r)
	}
	line, err := e.ProxyLog(ctx, Shop, "redis", "spiffe://cluster.local/ns/shop/sa/client", since)
	if err != nil {
		return bad(err)
	}
	return judge(r.Text() == "+PONG" && strings.Contains(line, "6379"), "access log of Redis's proxy: /ns/shop/sa/client", "%s", r.Text())
}

func strangerCalls(ctx context.Context, e *Env) Observation {
	r, err := e.Call(ctx, Strangers, "stranger", "http", "http://web.shop/"+e.Nonce())
	if err != nil {
		return bad(err)
	}
	return judge(!r.OK && r.Status == 0, "the stranger's own connection", "%s", r)
}
