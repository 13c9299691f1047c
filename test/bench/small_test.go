// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/test/bench/measure"
	"github.com/isthmus-mesh/isthmus/test/bench/mesh"
	"github.com/isthmus-mesh/isthmus/test/bench/swarm"
)

// proxies of a small measurement.
const proxies = 40

// rule is a step, and how many resources of each type it may push to each proxy
// that sees it, for each change. What is not there must not come at all.
type rule struct {
	take func(*measure.Session) (*measure.Step, error)
	want map[string]int64
}

// rules of the steps. The service that changes has six clusters: two ports, whole
// and in two subsets, to one of which the new endpoint belongs. The new service
// has one.
func rules(t *testing.T, p swarm.Protocol) []rule {
	restart := func(s *measure.Session) (*measure.Step, error) { return s.Restart(t.Context()) }
	routes := "RDS"
	if p == swarm.Own {
		routes = "VHDS"
	}
	return []rule{
		{(*measure.Session).Endpoint, map[string]int64{"EDS": 4}},
		{(*measure.Session).Route, map[string]int64{routes: 1}},
		// Envoy waits for the endpoints of a cluster that changed, though they did not.
		{(*measure.Session).Cluster, map[string]int64{"CDS": 6, "EDS": 6}},
		{(*measure.Session).NewService, map[string]int64{"CDS": 1, "EDS": 1, routes: 1}},
		// Who connects anew gets nothing that it has.
		{restart, nil},
		{(*measure.Session).Storm, nil},
	}
}

func program(t *testing.T) string {
	t.Helper()
	root := os.Getenv("ISTHMUS_ROOT") // set by the suite; the tree above otherwise
	if root == "" {
		root = "../.."
	}
	p, err := filepath.Abs(filepath.Join(root, "bin/isthmusd"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p); err != nil {
		t.Skipf("there is no isthmusd to measure: %v; make build", err)
	}
	return p
}

func open(t *testing.T, shape *mesh.Shape, p swarm.Protocol) *measure.Session {
	t.Helper()
	o := measure.Options{Protocol: p, Limit: time.Minute, Calm: 200 * time.Millisecond, Repeat: 2}
	o.Program, o.Shape, o.Dir = program(t), shape, t.TempDir()
	s, _, err := measure.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// TestSmallMesh takes every step with few proxies, and fails if something does
// not arrive, or if something is sent that need not be.
func TestSmallMesh(t *testing.T) {
	for name, tt := range map[string]struct {
		shape    mesh.Shape
		protocol swarm.Protocol
		// clusters that a proxy holds at first, but for those of no service.
		clusters int64
	}{
		"delta":              {mesh.Shape{Services: 100, Endpoints: 10, Namespaces: 20, Kind: mesh.Entries}, swarm.Delta, 190},
		"scoped":             {mesh.Shape{Services: 100, Endpoints: 10, Namespaces: 20, Kind: mesh.Entries, Scoped: true}, swarm.Delta, 0},
		"state of the world": {mesh.Shape{Services: 100, Endpoints: 10, Namespaces: 20, Kind: mesh.Entries}, swarm.World, 190},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, &tt.shape, tt.protocol)
			first, err := s.Connect("connect", proxies, 0)
			if err != nil {
				t.Fatal(err)
			}
			lines := []string{brief(first)}
			if got := first.Pushed["EDS"].Resources; tt.clusters > 0 && got != tt.clusters*proxies {
				t.Errorf("%d proxies got %d endpoints of clusters, want %d each", proxies, got, tt.clusters)
			}
			for _, r := range rules(t, tt.protocol) {
				step, err := r.take(s)
				if err != nil {
					t.Fatal(err)
				}
				lines = append(lines, brief(step))
				if tt.protocol == swarm.Delta {
					judge(t, step, r.want, s.Seers())
				}
			}
			churn, err := s.Churn(100, 500*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			if !tt.shape.Scoped && churn.Seen != 1 { // scoped, few services change often
				t.Errorf("of %d changes to as many services, %.1f%% were seen", churn.Changes, churn.Seen*100)
			}
			fmt.Printf("%s, %d proxies\n  %s\n", name, proxies, strings.Join(append(lines, brief(churn)), "\n  "))
		})
	}
}

// judge compares what a step pushed with what it may push.
func judge(t *testing.T, s *measure.Step, want map[string]int64, seers int) {
	t.Helper()
	types := slices.Sorted(maps.Keys(s.Pushed))
	for typ := range want {
		if _, ok := s.Pushed[typ]; !ok {
			types = append(types, typ)
		}
	}
	for _, typ := range types {
		n := want[typ] * int64(seers) * int64(max(s.Changes, 1))
		if got := s.Pushed[typ].Resources; got != n {
			t.Errorf("%s: %d resources came by %s, want %d", s.Name, got, typ, n)
		}
	}
}
