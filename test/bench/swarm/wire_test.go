// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func packed(t testing.TB, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// framed is messages as gRPC sends them.
func framed(t testing.TB, ms ...proto.Message) []byte {
	t.Helper()
	var out []byte
	for _, m := range ms {
		b := marshal(t, m)
		out = append(out, 0)
		out = binary.BigEndian.AppendUint32(out, uint32(len(b)))
		out = append(out, b...)
	}
	return out
}

func response(n int) *discovery.DeltaDiscoveryResponse {
	r := &discovery.DeltaDiscoveryResponse{TypeUrl: typeURLs[Clusters], Nonce: fmt.Sprint("nonce", n), RemovedResources: []string{"gone"}}
	for i := range n {
		r.Resources = append(r.Resources, &discovery.Resource{Name: fmt.Sprintf("r%d", i), Version: "1"})
	}
	return r
}

// TestMessagesAreCutAnywhere feeds messages in pieces of every size: the fields
// are the same.
func TestMessagesAreCutAnywhere(t *testing.T) {
	t.Parallel()
	all := framed(t, response(3), &discovery.DeltaDiscoveryResponse{}, response(30), response(0))
	read := func(piece int) (out []string) {
		var s splitter
		for p := range slices.Chunk(all, piece) {
			// What was fed is written over, as a reader's buffer is.
			p := slices.Clone(p)
			err := s.feed(p, func(n protowire.Number, b []byte) error {
				out = append(out, fmt.Sprintf("%d=%s", n, b))
				return nil
			}, func() error {
				out = append(out, fmt.Sprintf("end of %d", s.size))
				return nil
			})
			if err != nil {
				t.Fatalf("pieces of %d: %v", piece, err)
			}
			clear(p)
		}
		return out
	}
	want := read(len(all))
	if len(want) != 3*3+3+30+4 || want[len(want)-1] == want[0] {
		t.Fatalf("read %d fields and ends: %q", len(want), want)
	}
	for piece := 1; piece < len(all); piece++ {
		if got := read(piece); !slices.Equal(got, want) {
			t.Fatalf("in pieces of %d: %q, want %q", piece, got, want)
		}
	}
}

func TestWhatIsNoProtobufIsRefused(t *testing.T) {
	t.Parallel()
	for name, b := range map[string][]byte{
		"a field longer than its message": {0, 0, 0, 0, 4, 0x12, 0x7f, 0, 0},
		"a tag that does not end":         {0, 0, 0, 0, 2, 0xff, 0xff},
	} {
		var s splitter
		err := s.feed(b, func(protowire.Number, []byte) error { return nil }, func() error { return nil })
		if !errors.Is(err, errWire) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNamesAreFound(t *testing.T) {
	t.Parallel()
	eds := &cluster.Cluster_Type{Type: cluster.Cluster_EDS}
	for name, tt := range map[string]struct {
		cluster *cluster.Cluster
		want    string
	}{
		"by the cluster's name": {&cluster.Cluster{Name: "a", ClusterDiscoveryType: eds}, "a"},
		"by a name of its own": {&cluster.Cluster{Name: "a", ClusterDiscoveryType: eds,
			EdsClusterConfig: &cluster.Cluster_EdsClusterConfig{ServiceName: "b"}}, "b"},
		"not at all": {&cluster.Cluster{Name: "a", ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_STATIC}}, ""},
	} {
		if got := string(endpointsOf(marshal(t, tt.cluster))); got != tt.want {
			t.Errorf("endpoints %s: got %q", name, got)
		}
	}
	manager := &hcm.HttpConnectionManager{RouteSpecifier: &hcm.HttpConnectionManager_Rds{Rds: &hcm.Rds{RouteConfigName: "8080"}}}
	filter := &listener.Filter{Name: "hcm", ConfigType: &listener.Filter_TypedConfig{TypedConfig: packed(t, manager)}}
	l := &listener.Listener{
		FilterChains:       []*listener.FilterChain{{Filters: []*listener.Filter{{Name: "other"}, filter}}},
		DefaultFilterChain: &listener.FilterChain{Filters: []*listener.Filter{filter}},
	}
	var routes []string
	routesOf(marshal(t, l), func(b []byte) { routes = append(routes, string(b)) })
	if !slices.Equal(routes, []string{"8080", "8080"}) {
		t.Errorf("routes of a listener: %q", routes)
	}
	apart := &route.RouteConfiguration{Name: "r", Vhds: &route.Vhds{ConfigSource: &core.ConfigSource{}}}
	if !hasVHDS(marshal(t, apart)) || hasVHDS(marshal(t, &route.RouteConfiguration{Name: "r"})) {
		t.Error("hosts of their own are not told from others")
	}
}

func TestAddressesAreRead(t *testing.T) {
	t.Parallel()
	for n := range 1000 {
		rest := Address("", n)
		if got, ok := number([]byte(rest + "\x18")); !ok || got != uint32(n) {
			t.Errorf("%q is read as %d, %v", rest, got, ok)
		}
	}
	if _, ok := number([]byte("12")); ok {
		t.Error("half an address is read")
	}
}

func TestRequestsAreEnvoys(t *testing.T) {
	t.Parallel()
	r := request{
		node: marshal(t, &core.Node{Id: "n"}), typ: Endpoints, nonce: "7", refuse: true,
		subscribe: []string{"a", "b"}, unsubscribe: []string{"c"}, versions: map[string]string{"a": "1"},
		names: []string{"x"}, version: "v",
	}
	var delta discovery.DeltaDiscoveryRequest
	if err := proto.Unmarshal(r.delta(), &delta); err != nil {
		t.Fatal(err)
	}
	if delta.GetNode().GetId() != "n" || delta.GetTypeUrl() != typeURLs[Endpoints] || delta.GetResponseNonce() != "7" ||
		delta.GetErrorDetail().GetMessage() == "" || !slices.Equal(delta.GetResourceNamesSubscribe(), []string{"a", "b"}) ||
		!slices.Equal(delta.GetResourceNamesUnsubscribe(), []string{"c"}) || delta.GetInitialResourceVersions()["a"] != "1" {
		t.Errorf("delta: %v", &delta)
	}
	var world discovery.DiscoveryRequest
	if err := proto.Unmarshal(r.world(), &world); err != nil {
		t.Fatal(err)
	}
	if world.GetNode().GetId() != "n" || world.GetTypeUrl() != typeURLs[Endpoints] || world.GetResponseNonce() != "7" ||
		world.GetErrorDetail().GetMessage() == "" || !slices.Equal(world.GetResourceNames(), []string{"x"}) || world.GetVersionInfo() != "v" {
		t.Errorf("state of the world: %v", &world)
	}
}
