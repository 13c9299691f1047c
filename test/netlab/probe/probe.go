// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

// Package probe says as plain values what an application asks, what came of it,
// and what a proxy noted of it. netlab makes probes come true with real Envoys;
// test/simulation says of the same values what configuration makes of them.
package probe

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
)

// Protocol is what the application speaks; the part of a URL before "://".
type Protocol string

// Protocols of an application.
const (
	HTTP  Protocol = "http"
	HTTP2 Protocol = "http2" // in the clear, by prior knowledge
	HTTPS Protocol = "https" // TLS of the application's own
	GRPC  Protocol = "grpc"
	WS    Protocol = "ws"
	// TCP sends a line and reads one.
	TCP Protocol = "tcp"
	// MySQL does as TCP does, after the server has greeted it.
	MySQL Protocol = "mysql"
)

// defaultPorts are those that a URL need not name.
var defaultPorts = map[Protocol]string{HTTP: "80", HTTP2: "80", HTTPS: "443", WS: "80"}

// Probe is what is asked.
type Probe struct {
	// From is the name of the pod that asks.
	From     string
	Protocol Protocol
	// Destination is where the connection goes: a name or an address, and a port.
	Destination string
	// Authority is the host as HTTP is told; empty for lines of TCP.
	Authority string
	// Path with its query; empty for lines of TCP and for gRPC.
	Path    string
	Headers map[string]string
	// SNI is the server's name in the application's own TLS.
	SNI string
}

// Parse reads a probe from a URL such as grpc://b:50051, http://b/path or
// tcp://10.0.0.1:9000.
func Parse(from, text string) (Probe, error) {
	u, err := url.Parse(text)
	if err != nil {
		return Probe{}, err
	}
	p := Probe{From: from, Protocol: Protocol(u.Scheme), Destination: u.Host}
	switch p.Protocol {
	case HTTP, HTTP2, HTTPS, WS, GRPC:
		p.Authority = u.Host
	case TCP, MySQL:
	default:
		return Probe{}, fmt.Errorf("%s: no such protocol", text)
	}
	if u.Port() == "" {
		port := defaultPorts[p.Protocol]
		if port == "" {
			return Probe{}, fmt.Errorf("%s: a port is needed", text)
		}
		p.Destination = net.JoinHostPort(u.Hostname(), port)
	}
	if p.Protocol == HTTPS && net.ParseIP(u.Hostname()) == nil {
		p.SNI = u.Hostname()
	}
	if p.Authority != "" && p.Protocol != GRPC {
		if p.Path = u.RequestURI(); p.Path == "" {
			p.Path = "/"
		}
	}
	return p, nil
}

// String is the URL, and what it does not say.
func (p Probe) String() string {
	to := p.Destination
	if p.Authority != "" {
		to = p.Authority
	}
	s := fmt.Sprintf("%s: %s://%s%s", p.From, p.Protocol, to, p.Path)
	if p.Authority != "" && p.Destination != p.address() {
		s += " by way of " + p.Destination
	}
	for _, k := range slices.Sorted(maps.Keys(p.Headers)) {
		s += fmt.Sprintf(" %s=%s", k, p.Headers[k])
	}
	return s
}

// address is where the authority alone would lead to.
func (p Probe) address() string {
	if _, _, err := net.SplitHostPort(p.Authority); err == nil || p.Protocol == GRPC {
		return p.Authority
	}
	return net.JoinHostPort(strings.Trim(p.Authority, "[]"), defaultPorts[p.Protocol])
}

// Args are those by which testapp makes the probe.
func (p Probe) Args() []string {
	var args []string
	switch p.Protocol {
	case TCP:
		return []string{"tcp", p.Destination}
	case MySQL:
		return []string{"tcp", p.Destination, "--greeted"}
	case GRPC:
		args = []string{"grpc", p.Destination, "--host", p.Authority}
	case WS:
		args = []string{"ws", "ws://" + p.Authority + p.Path}
	case HTTPS:
		args = []string{"http", "https://" + p.Authority + p.Path, "--sni", p.SNI}
	case HTTP2:
		args = []string{"http", "http://" + p.Authority + p.Path, "--http2"}
	default:
		args = []string{"http", "http://" + p.Authority + p.Path}
	}
	if p.Protocol != GRPC && p.Destination != p.address() {
		args = append(args, "--connect", p.Destination)
	}
	for _, k := range slices.Sorted(maps.Keys(p.Headers)) {
		args = append(args, "--header", k+": "+p.Headers[k])
	}
	return args
}
