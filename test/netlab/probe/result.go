// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Result is what an application's request gave, as testapp prints it.
type Result struct {
	// OK: there was an answer, and of a status below 400.
	OK     bool    `json:"ok"`
	Status int     `json:"status"`
	Error  string  `json:"error"`
	Millis float64 `json:"ms"`
	Body   any     `json:"body"`
	// Local and Remote are the ends of the connection, as the application knows them.
	Local  string `json:"local"`
	Remote string `json:"remote"`
}

// Field is a field of a JSON answer as text, such as the server's name.
func (r Result) Field(path ...string) string {
	v := r.Body
	for _, k := range path {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// By is the name of the application that answered; empty if a proxy did, or nobody.
func (r Result) By() string {
	if line, ok := r.Body.(string); ok { // "name remote=address text"
		name, rest, _ := strings.Cut(line, " ")
		if strings.HasPrefix(rest, "remote=") {
			return name
		}
		return ""
	}
	return r.Field("name")
}

// Caller is the address from which that application was called.
func (r Result) Caller() string {
	if line, ok := r.Body.(string); ok {
		_, rest, _ := strings.Cut(line, " remote=")
		at, _, _ := strings.Cut(rest, " ")
		return at
	}
	return r.Field("remote")
}

// Hop is what a proxy noted of a request or connection in its access log.
type Hop struct {
	// Proxy is the name of its pod.
	Proxy string `json:"-"`
	// Downstream and Original are the ends of the connection that it accepted:
	// who called, and where to before it was redirected.
	Downstream string `json:"downstream"`
	Original   string `json:"original"`
	// Cluster and Upstream say where it went on to, Route by which route, and Left
	// from which address: the next hop's Downstream.
	Cluster  string `json:"cluster"`
	Upstream string `json:"upstream"`
	Left     string `json:"left"`
	Route    string `json:"route"`
	Code     int    `json:"code"`
	Flags    string `json:"flags"`
	// Peer is the caller's SPIFFE name, SNI the server's name that it asked for.
	Peer string `json:"peer"`
	SNI  string `json:"sni"`
	// ID is that of the request, the same at every proxy that speaks HTTP.
	ID string `json:"id"`
	// Method and Authority of HTTP; of a tunnel CONNECT, and where it leads.
	Method    string `json:"method"`
	Authority string `json:"authority"`
	// Protocol in which it was asked: HTTP/1.1, HTTP/2.
	Protocol string `json:"protocol"`
}

// internal begins the address of a listener within a proxy.
const internal = "envoy://"

// Within tells whether the hop went on to another listener of the same proxy.
func (h Hop) Within() bool { return strings.HasPrefix(h.Upstream, internal) }

// At tells whether it came to that internal listener.
func (h Hop) At(listener string) bool { return h.Original == internal+listener+"/" }

// Inside tells whether it came to an internal listener, whichever.
func (h Hop) Inside() bool { return strings.HasPrefix(h.Original, internal) }

// LogFormat makes a proxy note hops, and what helps people besides.
const LogFormat = `{"downstream":"%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%","original":"%DOWNSTREAM_LOCAL_ADDRESS%",` +
	`"cluster":"%UPSTREAM_CLUSTER%","upstream":"%UPSTREAM_HOST%","left":"%UPSTREAM_LOCAL_ADDRESS%","route":"%ROUTE_NAME%",` +
	`"code":"%RESPONSE_CODE%","flags":"%RESPONSE_FLAGS%","peer":"%DOWNSTREAM_PEER_URI_SAN%","sni":"%REQUESTED_SERVER_NAME%",` +
	`"id":"%REQ(X-REQUEST-ID)%","method":"%REQ(:METHOD)%","path":"%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%","authority":"%REQ(:AUTHORITY)%","protocol":"%PROTOCOL%",` +
	`"details":"%RESPONSE_CODE_DETAILS%","failure":"%UPSTREAM_TRANSPORT_FAILURE_REASON%","termination":"%CONNECTION_TERMINATION_DETAILS%"}`

// ParseHop reads a line of a proxy's log; false if it is not of the access log.
func ParseHop(proxy, line string) (Hop, bool) {
	h := Hop{Proxy: proxy}
	err := json.Unmarshal([]byte(line), &h)
	return h, err == nil && h.Downstream != ""
}
