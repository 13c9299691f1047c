// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

// echo is a server that says what it hears.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

func byteCluster(t *testing.T, addr string, timeout time.Duration) *resource.Resource {
	t.Helper()
	return marshalled(t, resource.Cluster, "bytes", &clusterv3.Cluster{
		Name: "bytes", ConnectTimeout: durationpb.New(timeout),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: "bytes", Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: socket(addr)}}}},
		}}},
	})
}

func byteListener(t *testing.T, addr, note string) *resource.Resource {
	t.Helper()
	p := &tcpproxyv3.TcpProxy{StatPrefix: "bytes", ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: "bytes"}}
	return marshalled(t, resource.Listener, "in", &listenerv3.Listener{
		Name: "in", Address: socket(addr),
		Metadata: &core.Metadata{FilterMetadata: map[string]*structpb.Struct{"note": {Fields: map[string]*structpb.Value{"note": structpb.NewStringValue(note)}}}},
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name: "envoy.filters.network.tcp_proxy", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(t, p)},
		}}}},
	})
}

// TestEnvoyKeepsConnectionsWhileTheirListenerStays is why listeners are the same
// in every topology: a connection outlives its cluster, even its removal, and is
// cut when its listener drains, of which nothing may change, be it only a note.
func TestEnvoyKeepsConnectionsWhileTheirListenerStays(t *testing.T) {
	for name, api := range protocols {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keepAConnection(t, newLab(t, api))
		})
	}
}

func keepAConnection(t *testing.T, l *lab) {
	backend := echo(t)
	in := byteListener(t, l.entry, "first")
	l.source.set(byteCluster(t, backend, time.Second), in)
	l.settled("the first configuration")
	var conn net.Conn
	l.eventually("a connection", func() (ok bool) {
		var err error
		conn, err = net.Dial("tcp", l.entry)
		return err == nil
	})
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	says := func(when string) {
		t.Helper()
		heard := make([]byte, len(when))
		if _, err := conn.Write([]byte(when)); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if _, err := io.ReadFull(conn, heard); err != nil || string(heard) != when {
			t.Fatalf("%s: heard %q, %v", when, heard, err)
		}
	}
	says("at first")
	l.source.set(byteCluster(t, backend, 2*time.Second), in)
	l.settled("a changed cluster")
	says("after the cluster changed")
	l.source.set(in)
	l.eventually("the cluster gone", func() bool { return !strings.Contains(l.clusters(), "\nbytes::") })
	says("after the cluster went")
	l.source.set(byteListener(t, l.entry, "second"))
	l.settled("a listener with another note")
	if n, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection outlives its listener: %d bytes, %v", n, err)
	}
}
