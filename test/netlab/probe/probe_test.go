// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProbesAreWrittenAsURLs(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		url  string
		via  string
		want Probe
		args string
	}{
		"a path":            {url: "http://b/x?y=1", want: Probe{Protocol: HTTP, Destination: "b:80", Authority: "b", Path: "/x?y=1"}, args: "http http://b/x?y=1"},
		"no path":           {url: "http://b", want: Probe{Protocol: HTTP, Destination: "b:80", Authority: "b", Path: "/"}, args: "http http://b/"},
		"a port":            {url: "http2://b:81/", want: Probe{Protocol: HTTP2, Destination: "b:81", Authority: "b:81", Path: "/"}, args: "http http://b:81/ --http2"},
		"own TLS":           {url: "https://b/", want: Probe{Protocol: HTTPS, Destination: "b:443", Authority: "b", Path: "/", SNI: "b"}, args: "http https://b/ --sni b"},
		"lines":             {url: "tcp://10.0.0.1:9", want: Probe{Protocol: TCP, Destination: "10.0.0.1:9"}, args: "tcp 10.0.0.1:9"},
		"gRPC":              {url: "grpc://b:9", want: Probe{Protocol: GRPC, Destination: "b:9", Authority: "b:9"}, args: "grpc b:9 --host b:9"},
		"WebSocket":         {url: "ws://b/ws", want: Probe{Protocol: WS, Destination: "b:80", Authority: "b", Path: "/ws"}, args: "ws ws://b/ws"},
		"an IPv6 address":   {url: "http://[fd00::1]/", want: Probe{Protocol: HTTP, Destination: "[fd00::1]:80", Authority: "[fd00::1]", Path: "/"}, args: "http http://[fd00::1]/"},
		"by way of another": {url: "http://b/", via: "10.0.0.1:80", want: Probe{Protocol: HTTP, Destination: "10.0.0.1:80", Authority: "b", Path: "/"}, args: "http http://b/ --connect 10.0.0.1:80"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Parse("", tt.url)
			if err != nil {
				t.Fatal(err)
			}
			if tt.via != "" {
				got.Destination = tt.via
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(tt.args, strings.Join(got.Args(), " ")); d != "" {
				t.Error(d)
			}
		})
	}
	for _, bad := range []string{"b/", "tcp://b", "ftp://b/", "grpc://b"} {
		if _, err := Parse("", bad); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}

func TestAnswersTellWhoGaveThem(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		body       any
		by, caller string
	}{
		"JSON":             {body: map[string]any{"name": "b", "remote": "10.0.0.1:2"}, by: "b", caller: "10.0.0.1:2"},
		"a line":           {body: "b remote=10.0.0.1:2 hello", by: "b", caller: "10.0.0.1:2"},
		"a proxy's answer": {body: "no healthy upstream"},
		"nothing":          {},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := Result{Body: tt.body}
			if r.By() != tt.by || r.Caller() != tt.caller {
				t.Errorf("by %q called from %q, want %q from %q", r.By(), r.Caller(), tt.by, tt.caller)
			}
		})
	}
}

func TestHopsAreReadFromAccessLogs(t *testing.T) {
	t.Parallel()
	h, ok := ParseHop("a", `{"downstream":"10.0.0.1:2","code":200,"cluster":null,"sni":"b"}`)
	if !ok || h.Code != 200 || h.Cluster != "" || h.SNI != "b" || h.Proxy != "a" {
		t.Errorf("read %+v, %v", h, ok)
	}
	for _, line := range []string{"", "[2026] warning", `{"level":"info"}`, "{"} {
		if _, ok := ParseHop("a", line); ok {
			t.Errorf("%q was taken for an entry", line)
		}
	}
}
