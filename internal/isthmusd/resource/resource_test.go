// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func set(names string) *Set {
	var out []*Resource
	for _, n := range strings.Split(names, "") {
		out = append(out, &Resource{Name: n})
	}
	return NewSet(out)
}

func TestUnion(t *testing.T) {
	t.Parallel()
	for range 1000 {
		a, b := set(randomNames()), set(randomNames())
		both := Union(a, b)
		want := NewSet(slices.Concat(a.List(), b.List())) // of two with one name the first
		if !slices.Equal(both.List(), want.List()) {
			t.Fatalf("union of %v and %v is %v, want %v", a.list, b.list, both.list, want.list)
		}
	}
	a := set("a")
	if Union(a, nil) != a || Union(nil, a) != a {
		t.Error("a union with nothing is another set")
	}
}

// TestWith replaces, and neither adds nor touches what was there.
func TestWith(t *testing.T) {
	t.Parallel()
	old := set("abc")
	before := slices.Clone(old.List())
	b, d := &Resource{Name: "b", Version: 1}, &Resource{Name: "d"}
	got := old.With(d, b).List()
	if want := []*Resource{before[0], b, before[2]}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if !slices.Equal(old.List(), before) {
		t.Error("the old set has changed")
	}
}

func TestUnasked(t *testing.T) {
	t.Parallel()
	all := set("abcd")
	if Unasked(all, set("x")) != all {
		t.Error("without clusters on demand it is another set")
	}
	for _, name := range []string{"b", "c", "d"} {
		all.Get(name).OnDemand = true
	}
	hosts := set("xy")
	hosts.Get("x").Mirrors, hosts.Get("y").Mirrors = []string{"c", "missing"}, []string{"a", "c"}
	var got string
	for _, r := range Unasked(all, set("z"), hosts).List() {
		got += r.Name
	}
	if got != "ac" {
		t.Errorf("unasked are %q, want a and the mirror c", got)
	}
}

func randomNames() string {
	out := ""
	for range rand.IntN(6) {
		out += string(rune('a' + rand.IntN(8)))
	}
	return out
}
