// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"strings"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/internal/isthmusd/resource"
)

func samples() []*resource.Resource {
	return []*resource.Resource{
		{Type: resource.Cluster, Name: "small", Version: 1, Body: []byte("x")},
		{Type: resource.Cluster, Name: "empty", Version: 2},
		{Type: resource.Cluster, Name: "large", Version: 1<<64 - 1, Body: []byte(strings.Repeat("y", 3*smallBody))},
		{Type: resource.Cluster, Name: strings.Repeat("long name ", 30), Version: 3, Body: []byte("z")},
	}
}

func TestResponsesAreWhatProtobufReads(t *testing.T) {
	t.Parallel()
	url := resource.Cluster.URL()
	h := head{version: "7", url: url, nonce: "n", removed: []string{"gone", "also gone"}}
	delta := &discovery.DeltaDiscoveryResponse{SystemVersionInfo: "7", TypeUrl: url, Nonce: "n", RemovedResources: h.removed}
	whole := &discovery.DiscoveryResponse{VersionInfo: "7", TypeUrl: url, Nonce: "n"}
	for _, r := range samples() {
		body := &anypb.Any{TypeUrl: url, Value: r.Body}
		delta.Resources = append(delta.Resources, &discovery.Resource{Name: r.Name, Version: formatVersion(r.Version), Resource: body})
		whole.Resources = append(whole.Resources, body)
	}
	for p, want := range map[Protocol]proto.Message{Delta: delta, StateOfTheWorld: whole} {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			bytes, err := newCodec().Marshal(message(p, h, encode(p, samples())))
			if err != nil {
				t.Fatal(err)
			}
			got := want.ProtoReflect().New().Interface()
			if err := proto.Unmarshal(bytes.Materialize(), got); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestOtherMessagesAreLeftAlone(t *testing.T) {
	t.Parallel()
	in := &discovery.DiscoveryRequest{TypeUrl: "x"}
	b, err := newCodec().Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	out := &discovery.DiscoveryRequest{}
	if err := newCodec().Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(in, out, protocmp.Transform()); d != "" {
		t.Error(d)
	}
}

func TestVersionsSurviveTheWire(t *testing.T) {
	t.Parallel()
	for _, v := range []uint64{1, 42, 1<<64 - 1} {
		if got := parseVersion(formatVersion(v)); got != v {
			t.Errorf("%d became %d", v, got)
		}
	}
	for _, s := range []string{"", "x", "2026-01-01T00:00:00Z/12", "123456789012345678"} {
		if got := parseVersion(s); got != 0 {
			t.Errorf("%q became %d, want 0", s, got)
		}
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	r := func(name string, v uint64) *resource.Resource { return &resource.Resource{Name: name, Version: v} }
	set := func(rs ...*resource.Resource) *resource.Set { return resource.NewSet(rs) }
	names := func(rs []*resource.Resource) string {
		var out []string
		for _, r := range rs {
			out = append(out, r.Name)
		}
		return strings.Join(out, " ")
	}
	tests := map[string]struct {
		from, to         *resource.Set
		changed, removed string
	}{
		"nothing to nothing":     {},
		"nothing to something":   {to: set(r("a", 1), r("b", 1)), changed: "a b"},
		"something to nothing":   {from: set(r("a", 1), r("b", 1)), removed: "a b"},
		"equal, other pointers":  {from: set(r("a", 1)), to: set(r("a", 1))},
		"added, changed, gone":   {from: set(r("a", 1), r("b", 1), r("c", 1)), to: set(r("b", 2), r("c", 1), r("d", 1)), changed: "b d", removed: "a"},
		"everything is replaced": {from: set(r("a", 1), r("c", 1)), to: set(r("b", 1), r("d", 1)), changed: "b d", removed: "a c"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDiffs().between(tc.from, tc.to)
			if names(d.changed) != tc.changed || names(d.removed) != tc.removed {
				t.Errorf("changed %q removed %q, want %q and %q", names(d.changed), names(d.removed), tc.changed, tc.removed)
			}
		})
	}
}

func TestDiffsAreSharedAndBounded(t *testing.T) {
	t.Parallel()
	c := newDiffs()
	a, b := resource.NewSet(nil), resource.NewSet(samples())
	if first, again := c.between(a, b), c.between(a, b); first != again {
		t.Error("the same step was computed twice")
	}
	for range 2 * keptDiffs {
		c.between(a, resource.NewSet(samples()))
	}
	if len(c.steps) > keptDiffs || len(c.order) > keptDiffs {
		t.Errorf("%d steps are kept, want at most %d", len(c.steps), keptDiffs)
	}
}
