// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"
)

// TestEnvoyMissesAClusterThatADrainingListenerUses is why clusters are removed last,
// and Linger after listeners: a client that keeps its connection to a listener that
// drains still needs the cluster of then.
func TestEnvoyMissesAClusterThatADrainingListenerUses(t *testing.T) {
	for name, api := range protocols {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := &lab{t: t, entry: freeAddr(t), linger: time.Nanosecond, drain: 3600}
			l.start(api)
			old, next := backend(t, "old"), backend(t, "next")
			l.source.set(edsCluster(t, "a", "svc-a", time.Second), assignment(t, "svc-a", old),
				httpListener(t, l.entry, "80", "in"), routeTo(t, "80", "a"))
			l.answers("old")
			kept := keepAlive{t: t, at: l.entry, client: &http.Client{Transport: &http.Transport{}}}
			kept.get(http.StatusOK)
			l.source.set(edsCluster(t, "b", "svc-b", time.Second), assignment(t, "svc-b", next),
				httpListener(t, l.entry, "81", "other"), routeTo(t, "81", "b"))
			l.settled("another listener")
			l.eventually("cluster a gone", func() bool { return !strings.Contains(l.clusters(), "\na::observability_name") })
			if reused := kept.get(http.StatusServiceUnavailable); !reused {
				t.Error("the connection was not kept, so this says nothing")
			}
		})
	}
}

// keepAlive is a client with one connection.
type keepAlive struct {
	t      *testing.T
	at     string
	client *http.Client
}

// get wants this status, and tells whether the connection is the one of before.
func (k keepAlive) get(want int) (reused bool) {
	k.t.Helper()
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}
	r, err := http.NewRequestWithContext(httptrace.WithClientTrace(k.t.Context(), trace), http.MethodGet, "http://"+k.at+"/", nil)
	if err != nil {
		k.t.Fatal(err)
	}
	answer, err := k.client.Do(r)
	if err != nil {
		k.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		k.t.Fatal(err)
	}
	if answer.StatusCode != want {
		k.t.Errorf("status %d, want %d", answer.StatusCode, want)
	}
	return reused
}
