// Copyright The Isthmus Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
)

// TestSubscriptionIsASet compares it with a map under random changes.
func TestSubscriptionIsASet(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	ns := newNames()
	var s subscription
	want := map[string]struct{}{}
	for range 20000 {
		name := strconv.Itoa(random.IntN(200))
		switch random.IntN(5) {
		case 0, 1:
			s.add(name)
			want[name] = struct{}{}
		case 2, 3:
			s.remove(name)
			delete(want, name)
		default:
			ns.share(&s)
		}
		if _, ok := want[name]; ok != s.has(name) || s.len() != len(want) {
			t.Fatalf("has(%s) = %v and len = %d, want %v and %d", name, s.has(name), s.len(), ok, len(want))
		}
	}
	if got := slices.Sorted(s.all()); !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
		t.Errorf("all = %v", got)
	}
}

func TestEqualSubscriptionsShare(t *testing.T) {
	t.Parallel()
	ns := newNames()
	var a, b subscription
	for i := range 2 * fewNames {
		a.add(strconv.Itoa(i))
		b.add(strconv.Itoa(2*fewNames - 1 - i))
	}
	ns.share(&a)
	ns.share(&b)
	if a.shared == nil || a.shared != b.shared || len(a.more) != 0 {
		t.Error("equal subscriptions do not share")
	}
}
