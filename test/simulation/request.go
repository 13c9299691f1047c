// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// Ports to which a pod's traffic is redirected.
const (
	OutboundPort = 15001
	InboundPort  = 15006
)

// Protocol is what a client speaks inside all TLS.
type Protocol string

// Protocols. gRPC is HTTP/2 with its content type, a WebSocket HTTP/1.1 with an
// upgrade; see Request.
const (
	HTTP10 Protocol = "HTTP/1.0"
	HTTP1  Protocol = "HTTP/1.1"
	HTTP2  Protocol = "HTTP/2"
	// TCP is anything that is not HTTP.
	TCP Protocol = "TCP"
)

// TLS is one layer of it, as the client offers it.
type TLS struct {
	SNI  string
	ALPN []string
	// Peer holds the names in the client's certificate; empty if it shows none.
	Peer []string
	// Wanted are names of which the server's certificate must have one; it may be
	// for anybody if there are none.
	Wanted []*tlsv3.SubjectAltNameMatcher
}

// Trusts tells whether the client goes on with a server whose certificate has these
// names. Whether the certificate is genuine is not looked into.
func (t TLS) Trusts(names []string) (bool, error) { return matchesSAN(t.Wanted, names) }

// For is what a client wants that calls the server by this name.
func For(name string) []*tlsv3.SubjectAltNameMatcher {
	if name == "" {
		return nil
	}
	return []*tlsv3.SubjectAltNameMatcher{{
		SanType: tlsv3.SubjectAltNameMatcher_DNS,
		Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: name}},
	}}
}

// Request is a virtual one: a connection, and what is first sent on it.
type Request struct {
	// Source is the client's end.
	Source netip.AddrPort
	// Destination is what the client dialled.
	Destination netip.AddrPort
	// Accepted is the proxy's own address to which the connection was redirected;
	// unset where it came to the Destination itself.
	Accepted netip.AddrPort
	// Internal names the internal listener to which it came instead.
	Internal string
	// TLS layers, outermost first.
	TLS      []TLS
	Protocol Protocol
	// Silent clients wait for the server to speak first.
	Silent bool
	// Method is GET unless given, Path "/".
	Method, Authority, Path string
	// Headers by lower-case name.
	Headers map[string][]string
	// Upgrade that is asked for, such as "websocket".
	Upgrade string
	// State that came along from another listener of the same proxy.
	State map[string]string
	// Carried is what a CONNECT is made for.
	Carried *Request
	// Certificate holds the names in the mesh's certificate of the proxy that it
	// comes to; without them it is taken for the one that the client wants.
	Certificate []string
}

// Outbound is the request as the redirect in the client's pod hands it over.
func (r Request) Outbound() Request { return r.redirected(OutboundPort) }

// Inbound is the request as the redirect in the server's pod hands it over.
func (r Request) Inbound() Request { return r.redirected(InboundPort) }

func (r Request) redirected(port uint16) Request {
	ip := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if r.Destination.Addr().Is6() {
		ip = netip.IPv6Loopback()
	}
	r.Accepted = netip.AddrPortFrom(ip, port)
	return r
}

func (r Request) isHTTP() bool { return r.Protocol != TCP && r.Protocol != "" }

// clone makes a copy that may be changed.
func (r Request) clone() Request {
	r.TLS = slices.Clone(r.TLS)
	r.State = maps.Clone(r.State)
	h := make(map[string][]string, len(r.Headers))
	for k, v := range r.Headers {
		h[k] = slices.Clone(v)
	}
	r.Headers = h
	return r
}

// header lists the values of a header. Pseudo-headers are headers.
func (r Request) header(name string) []string {
	name = strings.ToLower(name)
	pseudo, is := map[string]string{":authority": r.Authority, "host": r.Authority, ":path": r.Path, ":method": r.Method}[name]
	switch {
	case !is:
		return r.Headers[name]
	case pseudo == "":
		return nil
	}
	return []string{pseudo}
}

// first is the first value of a header, empty if it is missing.
func (r Request) first(name string) string {
	for _, v := range r.header(name) {
		return v
	}
	return ""
}

// String is one line about the request.
func (r Request) String() string {
	var b strings.Builder
	if r.isHTTP() {
		fmt.Fprintf(&b, "%s %s %s%s ", r.Protocol, r.Method, r.Authority, r.Path)
		if r.Carried != nil {
			b.WriteString("for bytes ")
		}
		if r.Upgrade != "" {
			fmt.Fprintf(&b, "(%s) ", r.Upgrade)
		}
	} else {
		b.WriteString("bytes ")
	}
	for i := len(r.TLS) - 1; i >= 0; i-- {
		t := r.TLS[i]
		fmt.Fprintf(&b, "in TLS (name %q, protocols %q, client %q) ", t.SNI, t.ALPN, t.Peer)
	}
	if r.Internal != "" {
		fmt.Fprintf(&b, "to internal listener %s", r.Internal)
		return b.String()
	}
	fmt.Fprintf(&b, "from %s to %s", r.Source, r.Destination)
	if r.Accepted.IsValid() {
		fmt.Fprintf(&b, ", redirected to port %d", r.Accepted.Port())
	}
	return b.String()
}
